"""Metrics by name: those of the registry, and any other that ``evaluate.load`` finds.

Labels are class indices [examples] (single_label), zeros and ones [examples, classes] (multi_label) or
amounts [examples] (regression). Scores are probabilities [examples, classes], or the predicted amounts.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import evaluate
import numpy as np
from scipy.special import expit, softmax

from hf_finetune.data.labels import Target, encode_labels
from hf_finetune.errors import InputError, Problem, nearest
from hf_finetune.evaluation.registry import METRICS
from hf_finetune.evaluation.wording import cause_of
from hf_finetune.models.remote_code import FLAG

__all__ = [
    "all_metrics",
    "check_metric_names",
    "compute_metrics",
    "decide",
    "default_metrics",
    "greater_is_better",
    "label_array",
    "metric_problem",
    "probabilities",
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
_LOADED_LOWER_IS_BETTER = frozenset({"mse", "mape", "mase", "smape"})
_ADMITTED: dict[str, evaluate.EvaluationModule] = {}
"""Modules that ``metric_problem`` has loaded with permission; no other one is ever computed."""


def all_metrics(target: Target, classes: int | None = None) -> tuple[str, ...]:
    """Name every metric of the registry that is defined for a target.

    Args:
        target: What the labels are.
        classes: Number of classes, to leave out what says nothing of so few; None leaves out nothing.
    """
    defined = {name: metric for name, metric in METRICS.items() if target in metric.targets}
    return tuple(
        name for name, metric in defined.items() if classes is None or classes >= metric.fewest_classes
    )


def default_metrics(target: Target) -> tuple[str, ...]:
    """Name the metrics that are shown when the person names none. The first chooses the best checkpoint."""
    return _DEFAULTS[target]


def greater_is_better(name: str) -> bool:
    """Tell whether a better model has the greater value. Those of ``evaluate.load`` mostly are so."""
    return METRICS[name].greater_is_better if name in METRICS else name not in _LOADED_LOWER_IS_BETTER


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


def decide(scores: np.ndarray, target: Target, thresholds: Sequence[float] | None = None) -> np.ndarray:
    """Predict from scores: the likeliest class, zeros and ones, or the amounts.

    Args:
        scores: Probabilities [examples, classes], or amounts [examples].
        target: What the labels are.
        thresholds: From which probability on each class of multi-label data holds; None is 0.5 for all.
    """
    if target == "single_label":
        return scores.argmax(axis=-1)
    if target == "regression":
        return scores
    return (scores >= (_THRESHOLD if thresholds is None else np.asarray(thresholds))).astype(np.int64)


def label_array(labels: Iterable[Any], target: Target, classes: int) -> np.ndarray:
    """Write the ``label`` column of a dataset as the array that metrics take.

    Args:
        labels: Class indices, lists of class indices, or amounts.
        classes: Number of classes of the model.
    """
    values = list(labels)
    if target == "multi_label":
        return np.asarray(encode_labels(values, classes), dtype=np.int64).reshape(len(values), classes)
    return np.asarray(values, dtype=np.float64 if target == "regression" else np.int64)


def compute_metrics(
    names: Sequence[str],
    target: Target,
    scores: np.ndarray,
    labels: np.ndarray,
    thresholds: Sequence[float] | None = None,
) -> dict[str, float]:
    """Compute metrics, in the order of their names.

    Args:
        names: Of ``all_metrics(target)``, or what ``evaluate.load`` finds.
        scores: Probabilities [examples, classes], or for regression amounts [examples].
        labels: Class indices [examples], zeros and ones [examples, classes], or amounts [examples].
        thresholds: As in ``decide``.

    Returns:
        A value for each name; nan where the metric is undefined on these examples, such as ``roc_auc`` when
        all are of one class.

    Raises:
        InputError: If scores are not finite: then the training diverged.
        ValueError: If the shapes do not fit together, or if single-label scores are no probabilities.
    """
    scores, labels = _checked(scores, labels, target)
    decisions = decide(scores, target, thresholds)
    values = {}
    for name in names:
        if name in METRICS:
            values[name] = float(METRICS[name].compute(labels, decisions, scores))
        else:
            values[name] = _compute_loaded(name, decisions, labels)
    return values


def _checked(scores: np.ndarray, labels: np.ndarray, target: Target) -> tuple[np.ndarray, np.ndarray]:
    scores, labels = np.asarray(scores, dtype=np.float64), np.asarray(labels)
    wanted = 1 if target == "regression" else 2
    if scores.ndim != wanted or len(scores) == 0:
        raise ValueError(
            f"{target} scores must be {wanted}-dimensional and not empty. Got shape {scores.shape}."
        )
    if labels.shape != (scores.shape if target == "multi_label" else scores.shape[:1]):
        raise ValueError(
            f"Labels of shape {labels.shape} do not fit {target} scores of shape {scores.shape}."
        )
    broken = ~np.isfinite(scores.reshape(len(scores), -1)).all(axis=1)
    if broken.any():
        repair = "The training diverged: lower lr, or use speed.precision: fp32."
        value = f"nan or infinity for {broken.sum()} of {len(scores)} examples"
        raise InputError(Problem("The model's output", "must be finite numbers", value, repair))
    if target == "single_label":
        sums = scores.sum(axis=1, keepdims=True)
        if np.abs(sums - 1).max() > _SUM_TOLERANCE:
            raise ValueError("Single-label scores must be probabilities that sum to 1 in each row.")
        scores = scores / sums
    return scores, labels


def check_metric_names(
    names: Sequence[str],
    target: Target,
    *,
    classes: int = 2,
    place: str = "metrics",
    trust_remote_code: bool = False,
) -> None:
    """Check that every metric can be computed, before anything trains.

    Args:
        names: Names of metrics.
        target: What the labels are.
        classes: Number of classes, for trying a metric that ``evaluate.load`` finds.
        place: Where the list stands.
        trust_remote_code: Whether ``evaluate.load`` may run the script of a name outside the registry.

    Raises:
        InputError: Naming each one that cannot.
    """
    found = [
        metric_problem(name, target, f"{place}[{index}]", classes, trust_remote_code=trust_remote_code)
        for index, name in enumerate(names)
    ]
    problems = [problem for problem in found if problem is not None]
    if problems:
        raise InputError(problems)


def metric_problem(
    name: str, target: Target, place: str, classes: int = 2, *, trust_remote_code: bool = False
) -> Problem | None:
    """Return why a metric cannot be computed; None if it can.

    With ``trust_remote_code`` a name outside the registry is handed to ``evaluate.load``, which runs the script that
    it finds here, in its cache or on the Hub, and the metric is tried on a few examples. Without it such a name is
    refused, and nothing is looked up.
    """
    if name in METRICS:
        if target in METRICS[name].targets:
            return None
        rule = f"must be defined for {target} labels"
        return Problem(place, rule, repr(name), f"Known: {', '.join(map(repr, all_metrics(target)))}.")
    if not trust_remote_code:
        rule = f"must be a metric of this package for {target} labels unless {FLAG} is given"
        repair = f"{nearest(name, all_metrics(target))} With the option, evaluate.load runs {_script(name)}."
        return Problem(place, rule, repr(name), repair)
    try:
        _ADMITTED[name] = _load(name)
    except OSError:  # there is none, or the Hub cannot be reached
        rule = f"must be a metric for {target} labels, or one that evaluate.load finds here or on the Hub"
        return Problem(place, rule, repr(name), nearest(name, all_metrics(target)))
    except Exception as error:  # The script may raise anything while it is imported.
        return Problem(place, "must be loadable by evaluate.load", repr(name), f"{cause_of(error)}.")
    try:
        _compute_loaded(name, *_trial(target, classes))
    except Exception as error:
        rule = f"must be computable from the predictions and references of {target} data alone"
        return Problem(place, rule, repr(name), f"{cause_of(error)}.")
    return None


@cache
def _load(name: str) -> evaluate.EvaluationModule:
    return evaluate.load(name, keep_in_memory=True)


def _script(name: str) -> str:
    """Return the script that ``evaluate.load`` would run for a name, as it looks for one: here, then on the Hub."""
    path = Path(name)
    for script in (path, path / f"{path.name}.py"):
        if script.suffix == ".py" and script.is_file():
            return f"the script {str(script.absolute())!r}"
    return f"the script that the Hub has under the name {name!r}, or the copy of it in its cache"


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
