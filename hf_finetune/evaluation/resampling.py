"""Metrics of many resamples at once: each a choice, with repeats, of the same examples.

Labels, decisions and scores are as in ``registry``. Indices are [resamples, examples of each].
"""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from hf_finetune.data.labels import Target
from hf_finetune.evaluation.metrics import compute_metrics, decide

__all__ = ["FRACTIONS", "Statistic", "is_fast", "statistic", "surprise"]

Statistic = Callable[[np.ndarray], np.ndarray]
"""Gives the metric [resamples] of indices [resamples, examples]."""

FRACTIONS = ("accuracy", "exact_match", "top5_accuracy")
"""Metrics that are the fraction of examples of which something holds."""

_TOP = 5
_LEAST = np.finfo(np.float64).eps
_CELLS = 4_000_000
"""Most numbers of a table that are held at once: 32 MB of float64."""


def is_fast(name: str) -> bool:
    """Say whether a metric of many resamples is computed at once; the others are computed one by one."""
    return name in _MEANS or name == "rmse" or _split(name) is not None


def statistic(
    name: str,
    target: Target,
    labels: np.ndarray,
    scores: np.ndarray,
    thresholds: Sequence[float] | None = None,
) -> Statistic:
    """Make a function that computes a metric of resamples.

    Args:
        name: Of the registry, or what ``evaluate.load`` finds.
        target: What the labels are.
        labels: Class indices [examples], zeros and ones [examples, classes], or amounts [examples].
        scores: Probabilities [examples, classes], or amounts [examples].
        thresholds: From which probability on each class of multi-label data holds; None is 0.5 for all.
    """
    decisions = decide(scores, target, thresholds)
    if name in _MEANS or name == "rmse":
        values = _MEANS["mse" if name == "rmse" else name](labels, decisions, scores)
        return partial(_mean, values, root=name == "rmse")
    if counted := _split(name):
        score, average = counted
        if labels.ndim == 1:
            classes = np.arange(scores.shape[1])
            labels, decisions = labels[:, None] == classes, decisions[:, None] == classes
        return partial(_by_class, labels.astype(bool), decisions.astype(bool), score, average)
    return partial(_one_by_one, name, target, labels, scores, thresholds)


def _mean(values: np.ndarray, indices: np.ndarray, *, root: bool) -> np.ndarray:
    means = values[indices].mean(axis=-1)
    return np.sqrt(means) if root else means


def _by_class(
    labels: np.ndarray, decisions: np.ndarray, score: str, average: str, indices: np.ndarray
) -> np.ndarray:
    """Count right answers, answers and members of each class, and make the metric of these."""
    examples, classes = labels.shape
    members = [
        labels.astype(np.float64),
        decisions.astype(np.float64),
        (labels & decisions).astype(np.float64),
    ]
    found = []
    for rows in np.array_split(indices, max(1, -(-indices.shape[0] * max(examples, classes) // _CELLS))):
        times = np.stack([np.bincount(row, minlength=examples) for row in rows]).astype(np.float64)
        real, said, right = (times @ each for each in members)
        found.append(_score(real, said, right, score, average))
    return np.concatenate(found)


def _score(real: np.ndarray, said: np.ndarray, right: np.ndarray, score: str, average: str) -> np.ndarray:
    """Compute precision, recall or F1 of counts [resamples, classes], as scikit-learn defines their averages."""
    if average == "micro":
        real, said, right = (each.sum(axis=1, keepdims=True) for each in (real, said, right))
    of = {"precision": said, "recall": real, "f1": (real + said) / 2}[score]
    each = np.divide(right, of, out=np.zeros_like(right), where=of > 0)
    if average == "micro":
        return each[:, 0]
    if average == "weighted":
        weights = real
    else:  # macro: of the classes that occur; balanced: of those that occur in the labels
        weights = ((real > 0) if average == "balanced" else (real + said > 0)).astype(np.float64)
    total = weights.sum(axis=1)
    return np.divide((each * weights).sum(axis=1), total, out=np.zeros_like(total), where=total > 0)


def _one_by_one(
    name: str,
    target: Target,
    labels: np.ndarray,
    scores: np.ndarray,
    thresholds: Sequence[float] | None,
    indices: np.ndarray,
) -> np.ndarray:
    return np.array(
        [compute_metrics([name], target, scores[row], labels[row], thresholds)[name] for row in indices]
    )


def _split(name: str) -> tuple[str, str] | None:
    """Take ``f1_macro`` apart; None for what is not counted by class."""
    if name == "balanced_accuracy":
        return "recall", "balanced"
    score, _, average = name.partition("_")
    known = score in ("precision", "recall", "f1") and average in ("micro", "macro", "weighted")
    return (score, average) if known else None


def _right(labels: np.ndarray, decisions: np.ndarray, scores: np.ndarray) -> np.ndarray:
    same = labels == decisions
    return same.reshape(len(same), -1).all(axis=1).astype(np.float64)


def _among_five(labels: np.ndarray, decisions: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Say whether the class is among the five likeliest; of equal ones the greater index counts, as in scikit-learn."""
    likeliest = np.argsort(scores, axis=1, kind="mergesort")[:, ::-1][:, :_TOP]
    return (likeliest == labels[:, None]).any(axis=1).astype(np.float64)


def surprise(labels: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Give the cross-entropy of each example, in nats; for multi-label data the mean over its classes.

    Args:
        labels: Class indices [examples], or zeros and ones [examples, classes].
        scores: Probabilities [examples, classes].
    """
    if labels.ndim == 2:
        clipped = np.clip(scores, _LEAST, 1 - _LEAST)
        return -np.where(labels == 1, np.log(clipped), np.log1p(-clipped)).mean(axis=1)
    return -np.log(np.clip(scores[np.arange(len(labels)), labels], _LEAST, 1.0))


_MEANS: dict[str, Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]] = {
    "accuracy": _right,
    "exact_match": _right,
    "top5_accuracy": _among_five,
    "log_loss": lambda labels, decisions, scores: surprise(labels, scores),
    "mae": lambda labels, decisions, scores: np.abs(labels - scores),
    "mse": lambda labels, decisions, scores: (labels - scores) ** 2,
}
