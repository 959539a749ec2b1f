"""Whether one run is better than another: paired tests of both on the same test examples."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from scipy.stats import binomtest

from hf_finetune.data.content_hashes import HASHES, read_hashes
from hf_finetune.data.formatting import listed
from hf_finetune.data.labels import Target
from hf_finetune.errors import InputError, Problem
from hf_finetune.evaluation.costs import CostTable
from hf_finetune.evaluation.intervals import LEVEL, Interval, bootstrap_difference
from hf_finetune.evaluation.metrics import decide, default_metrics, suggest_metric
from hf_finetune.evaluation.predictions import Predictions, read_predictions
from hf_finetune.evaluation.registry import NO_SETTINGS, MetricSettings, find_metric, needs_all_scores
from hf_finetune.evaluation.resampling import example_values, is_fast, is_fraction, statistic
from hf_finetune.evaluation.top_scores import TOP, TopScores
from hf_finetune.evaluation.unknown_labels import fill_unknown
from hf_finetune.files import can_be_path

__all__ = ["Comparison", "Difference", "McNemar", "Verdict", "compare_runs", "paired_difference"]

SHOWN = 3

Verdict = Literal["above", "below", "not distinguishable"]


@dataclass(frozen=True)
class Difference:
    """One metric of a run and of the first one, on the same examples.

    Attributes:
        metric: Its name.
        first: Value of the first run.
        value: Value of this run.
        interval: 95 % interval of ``value - first``, by paired bootstrap; None where it is undefined.
        p_value: Probability of a difference at least as large if there were none: by McNemar's exact test for the
            fraction of examples of which something holds, else by the bootstrap; None where it is undefined.
    """

    metric: str
    first: float
    value: float
    interval: Interval | None
    p_value: float | None

    @property
    def verdict(self) -> Verdict:
        """Whether this run's value is above or below the first one's, or the examples cannot tell.

        The interval must exclude 0, and the test must agree: with few examples that differ, a bootstrap alone is
        too sure.
        """
        if self.interval is None or self.p_value is None or self.p_value > 1 - LEVEL:
            return "not distinguishable"
        low, high = self.interval
        return "above" if low > 0 else "below" if high < 0 else "not distinguishable"


@dataclass(frozen=True)
class McNemar:
    """Examples that one run has right and the other has not (McNemar 1947; the exact form, by the binomial law).

    Attributes:
        only_first: Right in the first run only.
        only_this: Right in this run only.
        p_value: Chance of counts as far apart if both were equally likely.
    """

    only_first: int
    only_this: int
    p_value: float


@dataclass(frozen=True)
class Comparison:
    """A run beside the first one.

    Attributes:
        run: As it was named.
        differences: Of each metric.
        mcnemar: Of the examples that are all right; None for amounts.
        examples: Number of test examples.
        group_column: The column by whose groups examples were resampled; None if each was on its own.
        groups: Number of groups; None likewise.
        others: Number of test examples that are called alike in both runs and have another content; 0 too where the
            contents are not known.
    """

    run: str
    differences: tuple[Difference, ...]
    mcnemar: McNemar | None
    examples: int
    group_column: str | None = None
    groups: int | None = None
    others: int = 0


def compare_runs(
    runs: Sequence[str | Path], metrics: Sequence[str] = (), *, seed: int = 0
) -> list[Comparison]:
    """Compare runs with the first of them, on the test examples that all of them predicted.

    Args:
        runs: Run directories, or files of predictions; at least two.
        metrics: Names of metrics; none are those that are shown by default.
        seed: Of the resamples.

    Raises:
        InputError: If the runs were not judged on the same examples, or a metric is unknown.
    """
    if len(runs) < 2:
        raise InputError(Problem("RUN...", "must name at least two runs", str(len(runs))))
    first, *others = [_read(Path(run)) for run in runs]
    for run, other in zip(runs[1:], others, strict=True):
        _check_same(str(runs[0]), first, str(run), other)
    target = first.predictions.target
    names = tuple(metrics) or default_metrics(target)
    costs = next((judged.costs for judged in (first, *others) if judged.costs), {})
    settings = MetricSettings(first.predictions.label_names, costs)
    problems = [problem for name in names if (problem := _metric_problem(name, target, settings))]
    for run, judged in zip(runs, (first, *others), strict=True):
        if isinstance(judged.predictions.scores, TopScores):
            problems += [
                Problem(
                    "--metric",
                    f"must be computable from the {TOP} most probable classes that {run} holds",
                    repr(name),
                    "Run with evaluation.probabilities: all.",
                )
                for name in names
                if needs_all_scores(name, target)
            ]
    if problems:
        raise InputError(problems)
    return [
        _compare(str(run), first, other.in_order_of(first), names, settings, seed)
        for run, other in zip(runs[1:], others, strict=True)
    ]


def paired_difference(
    metric: str,
    target: Target,
    labels: np.ndarray,
    first: np.ndarray,
    other: np.ndarray,
    *,
    seed: int,
    thresholds: tuple[Sequence[float] | None, Sequence[float] | None] = (None, None),
    groups: Sequence[str] | None = None,
    settings: MetricSettings = NO_SETTINGS,
) -> Difference:
    """Test whether two models differ in a metric on the same examples, which are resampled for both together.

    Args:
        metric: Its name.
        target: What the labels are.
        labels: Class indices [examples], zeros and ones [examples, classes], or amounts [examples].
        first: Scores of the first model: probabilities [examples, classes], or amounts [examples].
        other: Scores of the other model.
        seed: Of the resamples.
        thresholds: Of each model, from which probability on each class of multi-label data holds.
        groups: The group of each example, whose examples belong together; None if each is on its own.
        settings: The classes and costs.
    """
    arguments = [
        (metric, target, labels, scores, chosen, settings)
        for scores, chosen in zip((first, other), thresholds, strict=True)
    ]
    before, after = (statistic(*each) for each in arguments)
    interval, p_value = bootstrap_difference(
        before, after, len(labels), fast=is_fast(metric), seed=seed, groups=groups
    )
    if is_fraction(metric) and groups is None:
        one, two = (np.asarray(example_values(*each)) > 0 for each in arguments)
        p_value = _mcnemar(one, two).p_value
    whole = np.ones((1, len(labels)))
    return Difference(metric, before(whole).item(), after(whole).item(), interval, p_value)


def _metric_problem(name: str, target: Target, settings: MetricSettings) -> Problem | None:
    """Return why a metric cannot be compared: only those of this package can, from stored predictions."""
    metric = find_metric(name, settings)
    if metric is not None and target in metric.targets:
        return None
    repair = suggest_metric(name, target, settings)
    return Problem("--metric", f"must be a metric for {target} labels", repr(name), repair)


@dataclass(frozen=True)
class _Judged:
    """The predictions of a run, from which probability on its classes hold, what confusions cost, and its inputs."""

    predictions: Predictions
    thresholds: tuple[float, ...] | None
    costs: CostTable
    hashes: np.ndarray | None = None

    def in_order_of(self, other: "_Judged") -> "_Judged":
        """Give the same predictions, in the order of another run's examples and classes."""
        mine = self.predictions
        places = {name: row for row, name in enumerate(mine.ids)}
        rows = [places[name] for name in other.predictions.ids]
        labels, scores, thresholds = mine.labels[rows], mine.scores[rows], self.thresholds
        if mine.target != "regression":
            names = other.predictions.label_names
            columns = [mine.label_names.index(name) for name in names]
            scores = scores.reordered(columns) if isinstance(scores, TopScores) else scores[:, columns]
            labels = labels[:, columns] if labels.ndim == 2 else np.argsort(columns)[labels]
            thresholds = tuple(thresholds[column] for column in columns) if thresholds else None
        groups = tuple(mine.groups[row] for row in rows) if mine.groups is not None else None
        made = Predictions(
            *(other.predictions.ids, labels, scores, mine.target, other.predictions.label_names),
            *(groups, mine.group_column),
        )
        return _Judged(made, thresholds, self.costs, self.hashes)


def _read(run: Path) -> _Judged:
    if not can_be_path(run):
        raise InputError(Problem(str(run), "must be a run directory", "a name that no folder can have"))
    folder = run.expanduser()
    file = folder / "predictions.parquet" if folder.is_dir() else folder
    if folder.is_dir() and not file.is_file():
        repair = "It is written when a run with a test split is done."
        raise InputError(Problem(str(run), "must hold predictions.parquet", "none", repair))
    predictions = read_predictions(file)
    chosen = _content(file.parent / "metrics.json").get("thresholds")
    recipe = _content(file.parent / "manifest.json").get("recipe") or {}
    costs = (recipe.get("evaluation") or {}).get("costs") or {}
    thresholds = tuple(chosen[name] for name in predictions.label_names) if chosen else None
    hashes = (read_hashes(file.parent / HASHES) or {}).get("test")
    if hashes is not None and len(hashes) != len(
        predictions.ids
    ):  # of other predictions than those of the run
        hashes = None
    return _Judged(predictions, thresholds, costs, hashes)


def _content(path: Path) -> dict[str, Any]:
    """Return the content of a JSON file; nothing if there is none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _check_same(first_run: str, first: _Judged, run: str, other: _Judged) -> None:
    one, two = first.predictions, other.predictions
    if one.target != two.target or set(one.label_names) != set(two.label_names):
        rule = f"must be of the same classes as {first_run}"
        raise InputError(Problem(run, rule, listed(map(repr, two.label_names), most=SHOWN)))
    if len(set(one.ids)) != len(one.ids) or set(one.ids) != set(two.ids):
        strange = sorted(set(one.ids) ^ set(two.ids))
        found = (
            f"{len(strange):,} that only one of them has, such as {listed(map(repr, strange), most=SHOWN)}"
        )
        repair = "Split the data before both runs, or give both the same seed."
        raise InputError(Problem(run, f"must be judged on the test examples of {first_run}", found, repair))
    labels = {name: row for row, name in enumerate(two.ids)}
    rows = [labels[name] for name in one.ids]
    if not np.array_equal(_named(one), _named(two)[rows], equal_nan=one.target == "multi_label"):
        raise InputError(Problem(run, f"must have the test labels of {first_run}", "others"))


def _named(predictions: Predictions) -> np.ndarray:
    """Give labels that do not depend on the order of the classes."""
    if predictions.target == "single_label":
        return np.array(predictions.label_names)[predictions.labels]
    if predictions.target == "multi_label":
        return predictions.labels[:, np.argsort(predictions.label_names)]
    return predictions.labels


def _compare(
    run: str, first: _Judged, other: _Judged, names: Sequence[str], settings: MetricSettings, seed: int
) -> Comparison:
    one, two = first.predictions, other.predictions
    grouped = one if one.groups is not None else two
    differences = [
        paired_difference(
            *(name, one.target, one.labels, one.scores, two.scores),
            seed=seed,
            thresholds=(first.thresholds, other.thresholds),
            groups=grouped.groups,
            settings=settings,
        )
        for name in names
    ]
    mcnemar = None if one.target == "regression" else _mcnemar(_right(first), _right(other))
    groups = None if grouped.groups is None else len(set(grouped.groups))
    others = _count_others(first.hashes, other.hashes)
    return Comparison(run, tuple(differences), mcnemar, len(one.ids), grouped.group_column, groups, others)


def _count_others(first: np.ndarray | None, other: np.ndarray | None) -> int:
    """Count the inputs that only one of two runs was judged on; 0 where they are not known."""
    if first is None or other is None:
        return 0
    return (Counter(other.tolist()) - Counter(first.tolist())).total()


def _right(judged: _Judged) -> np.ndarray:
    predictions = judged.predictions
    decisions = decide(predictions.scores, predictions.target, judged.thresholds)
    labels, decisions = fill_unknown(predictions.labels, decisions)
    same = labels == decisions
    return same.reshape(len(same), -1).all(axis=1)


def _mcnemar(first: np.ndarray, other: np.ndarray) -> McNemar:
    only_first, only_this = int((first & ~other).sum()), int((other & ~first).sum())
    split = only_first + only_this
    return McNemar(only_first, only_this, float(binomtest(only_this, split).pvalue) if split else 1.0)
