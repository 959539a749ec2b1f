"""Checks, before training, of the metrics that select a checkpoint."""

from collections.abc import Sequence

import numpy as np

from hf_finetune.data.prepare import LabeledData
from hf_finetune.data.slices import group_of
from hf_finetune.errors import Problem, join_quoted
from hf_finetune.evaluation.metrics import defined_metrics, groups_of, labels_of
from hf_finetune.evaluation.registry import find_metric
from hf_finetune.evaluation.resolution import resolution_note
from hf_finetune.recipe.head_fit import solver_of
from hf_finetune.recipe.stage_fields import StageSpec
from hf_finetune.targets import TARGETS
from hf_finetune.targets.decisions import probabilities
from hf_finetune.targets.labels import UNKNOWN
from hf_finetune.targets.metric import NO_SETTINGS, MetricSettings
from hf_finetune.targets.scored_examples import ScoredExamples

__all__ = ["resolution_notes", "undefined_metric", "unknown_label_problem"]

NUM_TRIALS = 3
"""Number of sets of random predictions on which a metric is computed."""


def undefined_metric(
    name: str, data: LabeledData, place: str, settings: MetricSettings = NO_SETTINGS
) -> Problem | None:
    """Return the problem of a selection metric that is undefined on the validation split; None if it is defined.

    Args:
        name: Name of the metric.
        data: Splits of the data.
        place: Location of the metric in the recipe, for the error text.
        settings: Classes and costs, for the metrics that need them.
    """
    metric = find_metric(name, settings, data.target)
    if data.validation is None or metric is None:
        return None
    labels = labels_of(data.validation, data.target, len(data.label_names))
    groups = groups_of(data.validation)
    trials = (
        ScoredExamples(
            *(labels, _random_scores(data, labels, seed), data.target), groups=groups, settings=settings
        )
        for seed in range(NUM_TRIALS)
    )
    if any(np.isfinite(metric.compute(examples)) for examples in trials):
        return None
    examples = f"{len(labels):,} example{'s' if len(labels) > 1 else ''}"
    repair = (
        "Use a metric that is defined there, or add validation examples with data.split.validation; "
        "with best: null a stage keeps its last epoch."
    )
    value = f"{name!r}, which is undefined on {examples}{_describe_labels(data, labels)}"
    return Problem(place, "must be defined on the validation split", value, repair)


def _random_scores(data: LabeledData, labels: np.ndarray, seed: int) -> np.ndarray:
    """Return scores of random predictions, which differ from example to example."""
    rng = np.random.default_rng(seed)
    if TARGETS[data.target].is_text:
        return rng.permutation(labels)
    if not TARGETS[data.target].has_classes:
        width = TARGETS[data.target].score_width(len(data.label_names))
        return probabilities(rng.normal(size=(len(labels), width)), data.target)
    scores = rng.uniform(0.05, 0.95, size=(len(labels), len(data.label_names)))
    return scores / scores.sum(axis=1, keepdims=True) if TARGETS[data.target].is_exclusive else scores


def _describe_labels(data: LabeledData, labels: np.ndarray) -> str:
    kind = TARGETS[data.target]
    if kind.is_numeric:
        return f" with labels from {labels.min():g} to {labels.max():g}"
    if not kind.has_classes:
        return ""
    if kind.is_exclusive:
        return f" of the classes {join_quoted(data.label_names[index] for index in np.unique(labels))}"
    present = [name for name, column in zip(data.label_names, labels.T, strict=True) if (column == 1).any()]
    return f" with the classes {join_quoted(present)}" if present else " without any class"


def resolution_notes(
    stages: Sequence[StageSpec], primary_metric: str, data: LabeledData, task: str = ""
) -> tuple[str, ...]:
    """Return a note on a validation split that is too small to select an epoch; empty if it is large enough.

    Args:
        stages: Stages of the recipe. Stages without ``best`` select no epoch, nor do stages that fit the head at once,
            without gradient steps.
        primary_metric: Selection metric of stages that name none.
        data: Splits of the data.
        task: Name of the task that the data belongs to, if there are several; stages that select by a metric of
            another task are ignored.
    """
    chosen = [spec.best.metric or primary_metric for spec in stages if spec.best and not solver_of(spec)]
    if task:
        chosen = [name.removeprefix(f"{task}/") for name in chosen]
        chosen = [name for name in chosen if "/" not in name]
    if data.validation is None or not chosen:
        return ()
    group = group_of(data.validation)
    note = resolution_note(chosen[0], len(data.validation), len(set(group[1])) if group else None)
    return () if note is None else (note,)


def unknown_label_problem(
    name: str, data: LabeledData, place: str, settings: MetricSettings = NO_SETTINGS
) -> Problem | None:
    """Return the problem of a metric of ``evaluate``, which cannot ignore unknown labels, if there are any; else None.

    Args:
        name: Name of the metric.
        data: Splits of the data.
        place: Location of the metric in the recipe, for the error text.
        settings: Classes and costs, for the metrics that need them.
    """
    if name == "loss" or UNKNOWN not in data.train.column_names or find_metric(name, settings):
        return None
    rule = "must be a metric of this package if some labels are unknown"
    return Problem(place, rule, repr(name), f"Known: {join_quoted(defined_metrics(data.target, settings))}.")
