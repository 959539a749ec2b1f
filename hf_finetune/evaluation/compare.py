"""Whether one run is better than another, or only luckier: both judged on the same test examples."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import binomtest

from hf_finetune.data.wording import listed
from hf_finetune.errors import InputError, Problem
from hf_finetune.evaluation.intervals import Interval, bootstrap_difference
from hf_finetune.evaluation.metrics import all_metrics, decide, default_metrics
from hf_finetune.evaluation.predictions import Predictions, read_predictions
from hf_finetune.evaluation.resampling import is_fast, statistic

__all__ = ["Comparison", "Difference", "McNemar", "compare_runs"]

SHOWN = 3


@dataclass(frozen=True)
class Difference:
    """One metric of a run beside that of the first one.

    Attributes:
        metric: Its name.
        first: Value of the first run.
        value: Value of this run.
        interval: 95 % interval of ``value - first``; None where it is undefined.
        p_value: Chance of a difference as large if there were none, by paired bootstrap; None where it is undefined.
    """

    metric: str
    first: float
    value: float
    interval: Interval | None
    p_value: float | None


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
    """

    run: str
    differences: tuple[Difference, ...]
    mcnemar: McNemar | None
    examples: int


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
    known = all_metrics(target)
    problems = [
        Problem(
            "--metric", f"must be a metric for {target} labels", repr(name), f"Known: {', '.join(known)}."
        )
        for name in names
        if name not in known
    ]
    if problems:
        raise InputError(problems)
    return [
        _compare(str(run), first, other.in_order_of(first), names, seed)
        for run, other in zip(runs[1:], others, strict=True)
    ]


@dataclass(frozen=True)
class _Judged:
    """The predictions of a run, and from which probability on its classes hold."""

    predictions: Predictions
    thresholds: tuple[float, ...] | None

    def in_order_of(self, other: "_Judged") -> "_Judged":
        """Give the same predictions, in the order of another run's examples and classes."""
        mine = self.predictions
        places = {name: row for row, name in enumerate(mine.ids)}
        rows = [places[name] for name in other.predictions.ids]
        labels, scores, thresholds = mine.labels[rows], mine.scores[rows], self.thresholds
        if mine.target != "regression":
            names = other.predictions.label_names
            columns = [mine.label_names.index(name) for name in names]
            scores = scores[:, columns]
            labels = labels[:, columns] if labels.ndim == 2 else np.argsort(columns)[labels]
            thresholds = tuple(thresholds[column] for column in columns) if thresholds else None
        made = Predictions(other.predictions.ids, labels, scores, mine.target, other.predictions.label_names)
        return _Judged(made, thresholds)


def _read(run: Path) -> _Judged:
    folder = run.expanduser()
    file = folder / "predictions.parquet" if folder.is_dir() else folder
    if folder.is_dir() and not file.is_file():
        repair = "It is written when a run with a test split is done."
        raise InputError(Problem(str(run), "must hold predictions.parquet", "none", repair))
    predictions = read_predictions(file)
    try:
        said: Any = json.loads((file.parent / "metrics.json").read_text(encoding="utf-8")).get("thresholds")
    except (OSError, ValueError):
        said = None
    return _Judged(predictions, tuple(said[name] for name in predictions.label_names) if said else None)


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
    if not np.array_equal(_named(one), _named(two)[rows]):
        raise InputError(Problem(run, f"must have the test labels of {first_run}", "others"))


def _named(predictions: Predictions) -> np.ndarray:
    """Give labels that do not depend on the order of the classes."""
    if predictions.target == "single_label":
        return np.array(predictions.label_names)[predictions.labels]
    if predictions.target == "multi_label":
        return predictions.labels[:, np.argsort(predictions.label_names)]
    return predictions.labels


def _compare(run: str, first: _Judged, other: _Judged, names: Sequence[str], seed: int) -> Comparison:
    one = first.predictions
    examples = len(one.ids)
    differences = []
    for name in names:
        before, after = (
            statistic(name, one.target, one.labels, judged.predictions.scores, judged.thresholds)
            for judged in (first, other)
        )
        everything = np.arange(examples)[None]
        interval, p_value = bootstrap_difference(before, after, examples, fast=is_fast(name), seed=seed)
        differences.append(
            Difference(name, float(before(everything)[0]), float(after(everything)[0]), interval, p_value)
        )
    mcnemar = None if one.target == "regression" else _mcnemar(_right(first), _right(other))
    return Comparison(run, tuple(differences), mcnemar, examples)


def _right(judged: _Judged) -> np.ndarray:
    predictions = judged.predictions
    same = predictions.labels == decide(predictions.scores, predictions.target, judged.thresholds)
    return same.reshape(len(same), -1).all(axis=1)


def _mcnemar(first: np.ndarray, other: np.ndarray) -> McNemar:
    only_first, only_this = int((first & ~other).sum()), int((other & ~first).sum())
    split = only_first + only_this
    return McNemar(only_first, only_this, float(binomtest(only_this, split).pvalue) if split else 1.0)
