"""Comparison of runs by paired significance tests on the same test examples."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from scipy.stats import binomtest

from hf_finetune.data.content_hashes import HASHES, read_hashes
from hf_finetune.errors import InputError, Problem, join_words
from hf_finetune.evaluation.intervals import (
    LEVEL,
    Interval,
    bootstrap_difference,
    resampling_units,
    statistic,
)
from hf_finetune.evaluation.metrics import default_metrics, metric_for, suggest_metric
from hf_finetune.evaluation.predictions import BASELINE_FOLDER, Predictions, read_predictions
from hf_finetune.evaluation.registry import find_metric, needs_all_scores
from hf_finetune.files import is_valid_path
from hf_finetune.targets import TARGETS
from hf_finetune.targets.costs import CostTable
from hf_finetune.targets.decision_rule import DecisionRule
from hf_finetune.targets.labels import TargetName
from hf_finetune.targets.metric import MetricSettings
from hf_finetune.targets.scored_examples import ScoredExamples, group_indices
from hf_finetune.targets.top_scores import NUM_STORED, TopScores

__all__ = ["Comparison", "Difference", "McNemar", "Verdict", "compare_runs", "paired_difference"]

MAX_LISTED = 3
"""Maximum number of names in an error text."""

Verdict = Literal["above", "below", "not distinguishable"]


@dataclass(frozen=True)
class Difference:
    """Difference of one metric between a run and the first run, on the same examples.

    Attributes:
        metric: Name of the metric.
        first: Value of the first run.
        value: Value of this run.
        interval: 95 % paired bootstrap interval of ``value - first``; None where it is undefined.
        p_value: Two-sided p-value of the null hypothesis that there is no difference: by McNemar's exact test for a
            metric that is a fraction of the examples (such as accuracy), otherwise by the bootstrap; None where it is
            undefined.
    """

    metric: str
    first: float
    value: float
    interval: Interval | None
    p_value: float | None

    @property
    def verdict(self) -> Verdict:
        """Whether this run's value is significantly above or below the value of the first run.

        The interval must exclude 0 and the p-value must be at most 0.05: when few examples differ, a bootstrap
        interval alone is too narrow.
        """
        if self.interval is None or self.p_value is None or self.p_value > 1 - LEVEL:
            return "not distinguishable"
        low, high = self.interval
        return "above" if low > 0 else "below" if high < 0 else "not distinguishable"


@dataclass(frozen=True)
class McNemar:
    """McNemar's test of the examples that only one of two runs predicts correctly.

    Attributes:
        only_first: Number of examples that only the first run predicts correctly.
        only_this: Number of examples that only this run predicts correctly.
        p_value: Two-sided p-value of the null hypothesis that both cases are equally likely.

    Source: McNemar 1947; the exact form, with the binomial distribution.
    """

    only_first: int
    only_this: int
    p_value: float


@dataclass(frozen=True)
class Comparison:
    """Comparison of a run with the first run.

    Attributes:
        run: The run, as the user named it.
        differences: Difference of each metric.
        mcnemar: McNemar's test on whole examples (multi-label: all labels must match); None for regression.
        examples: Number of test examples.
        group_column: Column by whose groups the examples were resampled; None if they were resampled one by one.
        groups: Number of groups; None if examples were resampled one by one.
        changed_examples: Number of test examples with the same id in both runs but different content; 0 if the contents
            are not known.
    """

    run: str
    differences: tuple[Difference, ...]
    mcnemar: McNemar | None
    examples: int
    group_column: str | None = None
    groups: int | None = None
    changed_examples: int = 0


def compare_runs(
    runs: Sequence[str | Path], metrics: Sequence[str] = (), *, seed: int = 0
) -> list[Comparison]:
    """Compare each further run with the first one, on the test examples that all of them predicted.

    Args:
        runs: Run directories or prediction files; at least two.
        metrics: Names of the metrics; the default metrics of the label type if empty.
        seed: Seed of the bootstrap.

    Returns:
        One comparison for each run after the first.

    Raises:
        InputError: If the runs were not evaluated on the same examples, or a metric is unknown.
    """
    if len(runs) < 2:
        raise InputError(Problem("RUN...", "must be at least two runs", str(len(runs))))
    first, *later = [_read(Path(run)) for run in runs]
    for run, compared in zip(runs[1:], later, strict=True):
        _check_same(str(runs[0]), first, str(run), compared)
    target = first.predictions.target
    names = tuple(metrics) or default_metrics(target)
    costs = next((evaluated.costs for evaluated in (first, *later) if evaluated.costs), {})
    settings = MetricSettings(first.predictions.label_names, costs)
    problems = [problem for name in names if (problem := _metric_problem(name, target, settings))]
    for run, evaluated in zip(runs, (first, *later), strict=True):
        if isinstance(evaluated.predictions.scores, TopScores):
            problems += [
                Problem(
                    f"--metric {name}",
                    f"needs the probabilities of all classes, but {run} stores only the {NUM_STORED} highest",
                    repair="Run with evaluation.probabilities: all.",
                )
                for name in names
                if needs_all_scores(name, target)
            ]
    if problems:
        raise InputError(problems)
    return [
        _compare(str(run), first, compared.aligned_to(first), names, settings, seed)
        for run, compared in zip(runs[1:], later, strict=True)
    ]


def paired_difference(name: str, first: ScoredExamples, second: ScoredExamples, *, seed: int) -> Difference:
    """Test whether two models differ in a metric on the same examples.

    Each bootstrap resample is drawn once and used for both models.

    Args:
        name: Name of the metric.
        first: Labels, and scores of the first model. Groups are resampled as a whole.
        second: The same labels, and scores of the second model.
        seed: Seed of the bootstrap.

    Returns:
        Both values, the 95 % interval of their difference and its p-value.
    """
    metric = metric_for(name, first)
    first_metric, second_metric = statistic(metric, first), statistic(metric, second)
    interval, p_value = bootstrap_difference(
        first_metric, second_metric, resampling_units(first), fast=metric.is_fast, seed=seed
    )
    if metric.is_fraction and metric.per_example is not None and first.groups is None:
        first_correct, second_correct = (metric.per_example(examples) > 0 for examples in (first, second))
        p_value = _mcnemar(first_correct, second_correct).p_value
    once_each = np.ones((1, len(first)))
    values = first_metric(once_each).item(), second_metric(once_each).item()
    return Difference(name, *values, interval, p_value)


def _metric_problem(name: str, target: TargetName, settings: MetricSettings) -> Problem | None:
    """Return why a metric cannot be compared; None if it can.

    Only metrics of this package can be computed from stored predictions.
    """
    if find_metric(name, settings, target):
        return None
    repair = suggest_metric(name, target, settings)
    return Problem("--metric", f"must be a metric for the label type {target}", repr(name), repair)


@dataclass(frozen=True)
class _EvaluatedRun:
    """Predictions of a run, with its decision rule, misclassification costs and hashes of the test inputs."""

    predictions: Predictions
    rule: DecisionRule
    costs: CostTable
    hashes: np.ndarray | None = None

    def aligned_to(self, reference: "_EvaluatedRun") -> "_EvaluatedRun":
        """Return the same predictions in the order of another run's examples and classes."""
        predictions = self.predictions
        row_of_id = {name: row for row, name in enumerate(predictions.ids)}
        rows = [row_of_id[name] for name in reference.predictions.ids]
        labels, scores, rule = predictions.labels[rows], predictions.scores[rows], self.rule
        if TARGETS[predictions.target].has_classes:
            names = reference.predictions.label_names
            columns = [predictions.label_names.index(name) for name in names]
            scores = scores.reordered(columns) if isinstance(scores, TopScores) else scores[:, columns]
            labels = labels[:, columns] if labels.ndim == 2 else np.argsort(columns)[labels]
            rule = rule.reordered(columns)
        groups = tuple(predictions.groups[row] for row in rows) if predictions.groups is not None else None
        reordered = Predictions(
            ids=reference.predictions.ids,
            labels=labels,
            scores=scores,
            target=predictions.target,
            label_names=reference.predictions.label_names,
            groups=groups,
            group_column=predictions.group_column,
        )
        return _EvaluatedRun(reordered, rule, self.costs, self.hashes)


def _read(run: Path) -> _EvaluatedRun:
    if not is_valid_path(run):
        raise InputError(Problem(str(run), "must be a run directory", "an invalid folder name"))
    folder = run.expanduser()
    file = folder / "predictions.parquet" if folder.is_dir() else folder
    if folder.is_dir() and not file.is_file():
        repair = "Finish the run, or use a recipe with a test split."
        raise InputError(Problem(str(run), "contains no predictions.parquet", "", repair))
    predictions = read_predictions(file)
    chosen = _content(file.parent / "metrics.json").get("thresholds")
    is_baseline = file.parent.name == BASELINE_FOLDER
    run_folder = file.parent.parent if is_baseline else file.parent
    recipe = _content(run_folder / "manifest.json").get("recipe") or {}
    evaluation = recipe.get("evaluation") or {}
    costs = evaluation.get("costs") or {}
    rule = DecisionRule.of_run(chosen, predictions.label_names, evaluation.get("top_k"))
    hashes = (read_hashes(file.parent / HASHES) or {}).get("test")
    # the hashes belong to the predictions of the run, and this is another file of predictions
    if hashes is not None and len(hashes) != len(predictions.ids):
        hashes = None
    return _EvaluatedRun(predictions, rule, costs, hashes)


def _content(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file; empty if the file is missing, unreadable or contains no object."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _check_same(first_run: str, first: _EvaluatedRun, run: str, second: _EvaluatedRun) -> None:
    before, after = first.predictions, second.predictions
    if before.target != after.target or set(before.label_names) != set(after.label_names):
        rule = f"must have the same classes as {first_run}"
        raise InputError(Problem(run, rule, join_words(map(repr, after.label_names), most=MAX_LISTED)))
    if len(set(before.ids)) != len(before.ids) or set(before.ids) != set(after.ids):
        unshared = sorted(set(before.ids) ^ set(after.ids))
        names = join_words(map(repr, unshared), most=MAX_LISTED)
        value = f"{len(unshared):,} examples that only one of the runs has, such as {names}"
        repair = "Split the data before both runs, or use the same seed in both."
        raise InputError(
            Problem(run, f"must be evaluated on the test examples of {first_run}", value, repair)
        )
    row_of_id = {name: row for row, name in enumerate(after.ids)}
    rows = [row_of_id[name] for name in before.ids]
    if not np.array_equal(
        _named(before), _named(after)[rows], equal_nan=TARGETS[before.target].has_several_classes
    ):
        raise InputError(Problem(run, f"has other test labels than {first_run}"))


def _named(predictions: Predictions) -> np.ndarray:
    """Return the labels in a form that does not depend on the order of the classes.

    They are class names [examples], zeros and ones in alphabetical order of the classes [examples, classes], or
    regression targets [examples].
    """
    if TARGETS[predictions.target].is_exclusive:
        return np.array(predictions.label_names)[predictions.labels]
    if TARGETS[predictions.target].has_several_classes:
        return predictions.labels[:, np.argsort(predictions.label_names)]
    return predictions.labels


def _compare(
    run: str,
    first: _EvaluatedRun,
    second: _EvaluatedRun,
    names: Sequence[str],
    settings: MetricSettings,
    seed: int,
) -> Comparison:
    before, after = first.predictions, second.predictions
    grouped = before if before.groups is not None else after
    examples = ScoredExamples(
        labels=before.labels,
        scores=before.scores,
        target=before.target,
        rule=first.rule,
        groups=group_indices(grouped.groups),
        settings=settings,
    )
    second_examples = replace(examples, scores=after.scores, rule=second.rule)
    differences = [paired_difference(name, examples, second_examples, seed=seed) for name in names]
    has_classes = TARGETS[before.target].has_classes
    mcnemar = _mcnemar(examples.correct, second_examples.correct) if has_classes else None
    groups = None if grouped.groups is None else len(set(grouped.groups))
    changed_examples = _count_changed(first.hashes, second.hashes)
    return Comparison(
        run, tuple(differences), mcnemar, len(before.ids), grouped.group_column, groups, changed_examples
    )


def _count_changed(first: np.ndarray | None, second: np.ndarray | None) -> int:
    """Count the test inputs of the second run that the first run does not have; 0 if they are not known."""
    if first is None or second is None:
        return 0
    return (Counter(second.tolist()) - Counter(first.tolist())).total()


def _mcnemar(first: np.ndarray, second: np.ndarray) -> McNemar:
    only_first, only_this = int((first & ~second).sum()), int((second & ~first).sum())
    split = only_first + only_this
    return McNemar(only_first, only_this, float(binomtest(only_this, split).pvalue) if split else 1.0)
