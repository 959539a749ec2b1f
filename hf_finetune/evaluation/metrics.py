"""Metrics by name: those of the registry, those of a class or of k, and any other that ``evaluate.load`` finds.

Labels are class indices [examples] (single_label), zeros and ones [examples, classes] (multi_label) or
amounts [examples] (regression). Scores are probabilities [examples, classes], or the predicted amounts.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import evaluate
import numpy as np
from datasets import Dataset
from scipy.special import expit, softmax

from hf_finetune.data.labels import UNKNOWN, Target, encode_labels
from hf_finetune.errors import InputError, Problem, nearest
from hf_finetune.evaluation.error_text import cause_of
from hf_finetune.evaluation.registry import (
    ALIASES,
    COST_METRICS,
    METRICS,
    NO_SETTINGS,
    Metric,
    MetricSettings,
    find_metric,
    needs_all_scores,
    split_class_metric,
)
from hf_finetune.evaluation.top_scores import Scores, TopScores
from hf_finetune.models.remote_code import FLAG

__all__ = [
    "all_metrics",
    "check_metric_names",
    "compute_metrics",
    "decide",
    "default_metrics",
    "defined_metrics",
    "greater_is_better",
    "label_array",
    "labels_of",
    "metric_problem",
    "misspelled_metric",
    "probabilities",
    "suggest_metric",
    "without_nan",
]

_THRESHOLD = 0.5
_SUM_TOLERANCE = 1e-3
_DEFAULTS: dict[Target, tuple[str, ...]] = {
    "single_label": ("accuracy", "f1_macro"),
    "multi_label": ("f1_micro", "f1_macro", "exact_match"),
    "regression": ("rmse", "mae", "r2", "spearman"),
}
# A module of evaluate does not say which way is better. Most others are better when greater.
_LOADED_BY_THIS_NAME = frozenset({"f1", "precision", "recall", "r_squared", "spearmanr"})
"""Names that ``evaluate.load`` takes too, and means another metric by than the nearest one here."""
_LOADED_LOWER_IS_BETTER = frozenset({"mse", "mape", "mase", "smape"})
_ADMITTED: dict[str, evaluate.EvaluationModule] = {}
"""Modules that ``metric_problem`` has loaded with permission; no other one is ever computed."""


def all_metrics(
    target: Target, classes: int | None = None, settings: MetricSettings = NO_SETTINGS
) -> tuple[str, ...]:
    """Return the names of the metrics that are computed of every evaluation.

    Args:
        target: What the labels are.
        classes: Number of classes, to leave out what says nothing of so few or takes long for so many; None leaves
            out nothing.
        settings: Costs add the metrics of expected cost.
    """
    names = [
        name
        for name, metric in METRICS.items()
        if target in metric.targets
        and target not in metric.on_request
        and (classes is None or metric.fewest_classes <= classes <= (metric.most_classes or classes))
    ]
    return (*names, *_costs(target, settings))


def defined_metrics(target: Target, settings: MetricSettings = NO_SETTINGS) -> tuple[str, ...]:
    """Return the names of the metrics that can be asked for, those of ``all_metrics`` first."""
    first = all_metrics(target, settings=settings)
    others = [name for name, metric in METRICS.items() if target in metric.targets and name not in first]
    return (*first, *others)


def _costs(target: Target, settings: MetricSettings) -> tuple[str, ...]:
    return COST_METRICS if settings.costs and target == "single_label" else ()


def default_metrics(target: Target) -> tuple[str, ...]:
    """Name the metrics that are shown when the person names none. The first chooses the best checkpoint."""
    return _DEFAULTS[target]


def greater_is_better(name: str) -> bool:
    """Return whether a better model has the greater value. Those of ``evaluate.load`` mostly are so."""
    if name in METRICS:
        return METRICS[name].greater_is_better
    return name not in COST_METRICS and name not in _LOADED_LOWER_IS_BETTER


def probabilities(logits: np.ndarray, target: Target) -> np.ndarray:
    """Turn what a model puts out into scores, in float64.

    Args:
        logits: [examples, classes], for regression [examples, 1] or [examples].

    Returns:
        Softmax (single_label) or sigmoid (multi_label) [examples, classes], or the amounts [examples].
    """
    values = np.asarray(logits, dtype=np.float64)
    if target == "regression":
        return values.reshape(len(values))
    return softmax(values, axis=-1) if target == "single_label" else expit(values)


def decide(scores: Scores, target: Target, thresholds: Sequence[float] | None = None) -> np.ndarray:
    """Predict from scores: the likeliest class, zeros and ones, or the amounts.

    Args:
        scores: Probabilities [examples, classes], or amounts [examples].
        target: What the labels are.
        thresholds: From which probability on each class of multi-label data holds; None is 0.5 for all.
    """
    if isinstance(scores, TopScores):
        return scores.decisions
    if target == "single_label":
        return scores.argmax(axis=-1)
    if target == "regression":
        return scores
    return (scores >= (_THRESHOLD if thresholds is None else np.asarray(thresholds))).astype(np.int64)


def labels_of(dataset: Dataset, target: Target, classes: int) -> np.ndarray:
    """Return the labels of a split as the array that metrics take.

    Args:
        dataset: With the column ``label``, and perhaps ``unknown``.
        target: What the labels are.
        classes: Number of classes of the model.
    """
    unknown = dataset[UNKNOWN][:] if UNKNOWN in dataset.column_names else None
    return label_array(dataset["label"][:], target, classes, unknown)


def label_array(
    labels: Iterable[Any], target: Target, classes: int, unknown: Sequence[Sequence[int]] | None = None
) -> np.ndarray:
    """Write the ``label`` column of a dataset as the array that metrics take.

    Args:
        labels: Class indices, lists of class indices, or amounts.
        target: What the labels are.
        classes: Number of classes of the model.
        unknown: Of each example the classes that may or may not hold; None if there are none.

    Returns:
        Class indices [examples], amounts [examples], or zeros and ones [examples, classes]: with nan for what is
        unknown as floats, else as integers.
    """
    values = list(labels)
    if target == "multi_label":
        kind = np.float64 if unknown is not None and any(unknown) else np.int64
        rows = encode_labels(values, classes, unknown)
        return np.asarray(rows, dtype=kind).reshape(len(values), classes)
    return np.asarray(values, dtype=np.float64 if target == "regression" else np.int64)


def compute_metrics(
    names: Sequence[str],
    target: Target,
    scores: Scores,
    labels: np.ndarray,
    thresholds: Sequence[float] | None = None,
    settings: MetricSettings = NO_SETTINGS,
) -> dict[str, float]:
    """Compute metrics, in the order of their names.

    Args:
        names: Of ``defined_metrics(target)``, ``top_K_accuracy``, of a class (``recall:soup``), or what
            ``evaluate.load`` finds.
        scores: Probabilities [examples, classes], or for regression amounts [examples].
        labels: Class indices [examples], zeros and ones [examples, classes], or amounts [examples].
        thresholds: As in ``decide``.
        settings: The classes and costs, for the metrics that need them.

    Returns:
        A value for each name; nan where the metric is undefined on these examples, such as ``roc_auc`` when
        all are of one class, or needs all probabilities where there are only the highest.

    Raises:
        InputError: If scores are not finite: then the training diverged.
        ValueError: If the shapes do not fit together, or if single-label scores are no probabilities.
    """
    scores, labels = _checked(scores, labels, target)
    decisions = decide(scores, target, thresholds)
    values = {}
    for name in names:
        if isinstance(scores, TopScores) and needs_all_scores(name, target):
            values[name] = np.nan
        elif metric := find_metric(name, settings):
            values[name] = float(metric.compute(labels, decisions, scores))
        else:
            values[name] = _compute_loaded(name, decisions, labels)
    return values


def _checked(scores: Scores, labels: np.ndarray, target: Target) -> tuple[Any, np.ndarray]:
    labels = np.asarray(labels)
    if isinstance(scores, TopScores):
        _check_finite(scores.values)
        return scores, labels
    scores = np.asarray(scores, dtype=np.float64)
    wanted = 1 if target == "regression" else 2
    if scores.ndim != wanted or len(scores) == 0:
        raise ValueError(
            f"{target} scores must be {wanted}-dimensional and not empty. Got shape {scores.shape}."
        )
    if labels.shape != (scores.shape if target == "multi_label" else scores.shape[:1]):
        raise ValueError(
            f"Labels of shape {labels.shape} do not fit {target} scores of shape {scores.shape}."
        )
    _check_finite(scores)
    if target == "single_label":
        sums = scores.sum(axis=1, keepdims=True)
        if np.abs(sums - 1).max() > _SUM_TOLERANCE:
            raise ValueError("Single-label scores must be probabilities that sum to 1 in each row.")
        scores = scores / sums
    return scores, labels


def _check_finite(scores: np.ndarray) -> None:
    broken = ~np.isfinite(scores.reshape(len(scores), -1)).all(axis=1)
    if broken.any():
        repair = "The training diverged: lower lr, or use speed.precision: fp32."
        value = f"nan or infinity for {broken.sum()} of {len(scores)} examples"
        raise InputError(Problem("The model's output", "must be finite numbers", value, repair))


def check_metric_names(
    names: Sequence[str],
    target: Target,
    *,
    settings: MetricSettings = NO_SETTINGS,
    place: str = "metrics",
    trust_remote_code: bool = False,
) -> None:
    """Check that every metric can be computed, before anything trains.

    Args:
        names: Names of metrics.
        target: What the labels are.
        settings: The classes and costs.
        place: Where the list stands.
        trust_remote_code: Whether ``evaluate.load`` may run the script of a name outside the registry.

    Raises:
        InputError: Naming each one that cannot.
    """
    found = [
        metric_problem(name, target, f"{place}[{index}]", settings, trust_remote_code=trust_remote_code)
        for index, name in enumerate(names)
    ]
    problems = [problem for problem in found if problem is not None]
    if problems:
        raise InputError(problems)


def metric_problem(
    name: str,
    target: Target,
    place: str,
    settings: MetricSettings = NO_SETTINGS,
    *,
    trust_remote_code: bool = False,
) -> Problem | None:
    """Return why a metric cannot be computed; None if it can.

    With ``trust_remote_code`` a name that is none of this package's is handed to ``evaluate.load``, which runs the
    script that it finds here, in its cache or on the Hub, and the metric is tried on a few examples. Without it such a
    name is refused, and nothing is looked up.

    Args:
        name: Of the metric.
        target: What the labels are.
        place: Where the name stands.
        settings: The classes and costs.
        trust_remote_code: Whether ``evaluate.load`` may run the script of a name that is none of this package's.
    """
    if metric := find_metric(name, settings):
        return _unsuited(metric, target, place, settings)
    meant = suggest_metric(name, target, settings)
    score, label = split_class_metric(name)
    if label is not None:
        return Problem(place, f"must name a class after {score}:", repr(name), meant)
    known = _plain(name) in ALIASES or find_metric(_plain(name), settings) is not None
    if name in COST_METRICS or (known and name not in _LOADED_BY_THIS_NAME):
        return Problem(place, f"must be a metric for {target} labels", repr(name), meant)
    if not trust_remote_code:
        rule = f"must be a metric of this package for {target} labels unless {FLAG} is given"
        return Problem(place, rule, repr(name), _unless_trusted(name, meant))
    try:
        _ADMITTED[name] = _load(name)
    except OSError:  # there is none, or the Hub cannot be reached
        rule = f"must be a metric for {target} labels, or one that evaluate.load finds here or on the Hub"
        return Problem(place, rule, repr(name), meant)
    except Exception as error:  # The script may raise anything while it is imported.
        return Problem(place, "must be loadable by evaluate.load", repr(name), f"{cause_of(error)}.")
    try:
        _compute_loaded(name, *_trial(target, len(settings.label_names)))
    except Exception as error:
        rule = f"must be computable from the predictions and references of {target} data alone"
        return Problem(place, rule, repr(name), f"{cause_of(error)}.")
    return None


def suggest_metric(name: str, target: Target, settings: MetricSettings = NO_SETTINGS) -> str:
    """Return a sentence on which metric, or which class, was probably meant by a name that is none.

    Args:
        name: As it was given.
        target: What the labels are.
        settings: The classes and costs.
    """
    label = split_class_metric(name)[1]
    if label is not None:
        return nearest(label, settings.label_names)
    if name in COST_METRICS and target == "single_label":
        return "Say what confusions cost in evaluation.costs."
    plain = _plain(name)
    alias = ALIASES.get(plain, plain)
    meant = find_metric(alias, settings)
    if meant is not None and target in meant.targets:
        return f"Here it is called {alias!r}."
    return nearest(plain, defined_metrics(target, settings))


def _plain(name: str) -> str:
    return name.lower().replace("-", "_").replace(" ", "_").removeprefix("eval_").removeprefix("test_")


def _unsuited(metric: Metric, target: Target, place: str, settings: MetricSettings) -> Problem | None:
    if target not in metric.targets:
        known = ", ".join(map(repr, defined_metrics(target, settings)))
        rule = f"must be defined for {target} labels"
        return Problem(place, rule, repr(metric.name), f"Known: {known}.")
    classes = len(settings.label_names)
    if metric.name not in METRICS and 0 < classes < metric.fewest_classes:
        return Problem(place, f"must have a k below the number of classes, {classes}", repr(metric.name))
    return None


def misspelled_metric(name: str, place: str) -> Problem | None:
    """Return the problem of a name that is almost a metric's, whatever the labels are; None for any other name."""
    close = nearest(_plain(name), list(METRICS))
    is_known = find_metric(name, NO_SETTINGS) is not None or split_class_metric(name)[1] is not None
    if is_known or name in COST_METRICS or not close.startswith("Nearest"):
        return None
    return Problem(place, "must be a metric", repr(name), close)


@cache
def _load(name: str) -> evaluate.EvaluationModule:
    return evaluate.load(name, keep_in_memory=True)


def _unless_trusted(name: str, meant: str) -> str:
    """Return what ``evaluate.load`` would run for a name, as it looks for it: here, then on the Hub."""
    path = Path(name)
    for script in (path, path / f"{path.name}.py"):
        if script.suffix == ".py" and script.is_file():
            return f"With the option, evaluate.load runs the script {str(script.absolute())!r}."
    elsewhere = f"the script that the Hub has under the name {name!r}, or the copy of it in its cache"
    return f"{meant} With the option, evaluate.load runs {elsewhere}."


def _compute_loaded(name: str, decisions: np.ndarray, labels: np.ndarray) -> float:
    """Compute a module of evaluate, and take the value of its name, or the only one."""
    if name not in _ADMITTED:
        rule = f"must be a metric of this package unless {FLAG} is given"
        raise InputError(Problem("metrics", rule, repr(name)))
    values = _ADMITTED[name].compute(predictions=decisions.tolist(), references=labels.tolist())
    if isinstance(values, dict):
        if name not in values and len(values) != 1:
            raise ValueError(f"it gives several values: {', '.join(map(repr, values))}.")
        values = values[name] if name in values else next(iter(values.values()))
    return float(values)


def _trial(target: Target, classes: int) -> tuple[np.ndarray, np.ndarray]:
    if target == "regression":
        return np.array([0.0, 1.0]), np.array([0.0, 1.0])
    examples = np.arange(max(classes, 2))
    if target == "single_label":
        return examples, examples
    return np.eye(len(examples), dtype=np.int64), np.eye(len(examples), dtype=np.int64)


def without_nan(metrics: Mapping[str, float]) -> dict[str, float | None]:
    """Write what is undefined as null."""
    return {name: value if np.isfinite(value) else None for name, value in metrics.items()}
