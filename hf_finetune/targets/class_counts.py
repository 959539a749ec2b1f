"""Metrics of many bootstrap resamples at once, from the numbers of labels and decisions of each class.

A resample is given by how often every example occurs in it: counts are integers stored as floats [resamples, examples].
"""

from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

import numpy as np

from hf_finetune.fields.lazy_module import LazyModule
from hf_finetune.targets.agreement import weighted_kappa
from hf_finetune.targets.metric import Statistic
from hf_finetune.targets.scored_examples import ScoredExamples

__all__ = ["average_score", "class_score_statistic", "counts_statistic", "kappa_statistic"]

Combine = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
"""Function from true counts, predicted counts and true positives [resamples, classes] to a metric [resamples]."""
Table: TypeAlias = Any
"""Array of booleans [examples, classes], or the same as a sparse array of scipy."""

sparse = LazyModule("scipy.sparse")

_MIN_DENOMINATOR = 0.5
"""Smallest nonzero denominator: that of F1 is half the number of labels and decisions."""
_MAX_ARRAY_CELLS = 200_000
"""Maximum size of a temporary array; small enough to stay in the processor's cache."""


def counts_statistic(combine: Combine, examples: ScoredExamples) -> Statistic:
    """Return the function that computes a metric of resamples from the counts of all classes.

    Args:
        combine: Function that computes the metric from the counts.
        examples: Labels and scores.
    """
    labels, decisions = examples.filled
    if labels.ndim == 1:  # classes that are neither a label nor a decision do not affect these metrics
        occurring, places = np.unique(np.concatenate([labels, decisions]), return_inverse=True)
        in_label, in_decision = (_indicator(array, len(occurring)) for array in np.split(places, 2))
    else:
        in_label, in_decision = labels.astype(bool), decisions.astype(bool)
    return partial(_by_class, in_label, in_decision, combine)


def class_score_statistic(score: str, index: int, examples: ScoredExamples) -> Statistic:
    """Return the function that computes precision, recall or F1 of one class for resamples.

    Args:
        score: ``precision``, ``recall`` or ``f1``.
        index: Index of the class.
        examples: Labels and scores.
    """
    in_label, in_decision = (
        (array[:, [index]] == 1) if array.ndim == 2 else (array == index)[:, None]
        for array in examples.filled
    )
    return partial(_by_class, in_label, in_decision, partial(average_score, score, "micro"))


def kappa_statistic(power: int, examples: ScoredExamples) -> Statistic:
    """Return the function that computes the weighted kappa of resamples.

    Args:
        power: 1 for linear weights, 2 for quadratic ones.
        examples: Labels and scores of single-label data.
    """
    arrays = examples.labels, examples.decisions
    in_label, in_decision = (
        _indicator(array, examples.scores.shape[1]).T.astype(np.float64) for array in arrays
    )
    distances = np.abs(examples.labels - examples.decisions).astype(np.float64) ** power

    def compute(counts: np.ndarray) -> np.ndarray:
        tables = (in_label @ counts.T).T, (in_decision @ counts.T).T
        return weighted_kappa(*tables, counts @ distances, squared=power == 2)

    return compute


def average_score(
    score: str,
    average: str,
    true_counts: np.ndarray,
    predicted_counts: np.ndarray,
    true_positives: np.ndarray,
) -> np.ndarray:
    """Compute precision, recall or F1, averaged over the classes, as in scikit-learn.

    Args:
        score: ``precision``, ``recall`` or ``f1``.
        average: ``micro``, ``weighted``, ``macro`` (over classes in labels or decisions), or ``balanced`` (over
            classes in labels).
        true_counts: Number of examples of each class by label [resamples, classes].
        predicted_counts: Number of examples of each class by decision [resamples, classes].
        true_positives: Number of examples of each class that are decided correctly [resamples, classes].

    Returns:
        Averages [resamples]; 0 for 0 / 0.
    """
    if average == "micro":
        true_counts, predicted_counts, true_positives = (
            table.sum(axis=1, keepdims=True) for table in (true_counts, predicted_counts, true_positives)
        )
    either = true_counts + predicted_counts
    denominator = {"precision": predicted_counts, "recall": true_counts, "f1": either / 2}[score]
    values = true_positives / np.maximum(denominator, _MIN_DENOMINATOR)  # 0 for a class without counts
    if average == "micro":
        return values[:, 0]
    if average == "weighted":
        weighted_sum, total = (values * true_counts).sum(axis=1), true_counts.sum(axis=1)
    else:
        weighted_sum = values.sum(axis=1)
        total = np.count_nonzero(true_counts if average == "balanced" else either, axis=1).astype(np.float64)
    return np.divide(weighted_sum, total, out=np.zeros_like(total), where=total > 0)


def _indicator(indices: np.ndarray, classes: int) -> Table:
    rows = np.arange(len(indices))
    return sparse.csr_array((np.ones(len(indices), dtype=bool), (rows, indices)), (len(indices), classes))


def _by_class(in_label: Table, in_decision: Table, combine: Combine, counts: np.ndarray) -> np.ndarray:
    """Compute a metric from the numbers of labels, decisions and correct decisions per class and resample.

    Args:
        in_label: Whether the label of an example is a class [examples, classes].
        in_decision: Whether the decision for an example is a class [examples, classes].
        combine: Function that computes the metric from the counts.
        counts: Counts of the examples [resamples, examples].

    Returns:
        Metric of each resample [resamples].
    """
    is_correct = (
        in_label & in_decision if isinstance(in_label, np.ndarray) else in_label.multiply(in_decision)
    )
    tables = [table.T.astype(np.float64) for table in (in_label, in_decision, is_correct)]
    pieces = max(1, -(-counts.shape[0] * in_label.shape[1] // _MAX_ARRAY_CELLS))
    results = []
    for rows in np.array_split(counts, pieces):
        results.append(combine(*((table @ rows.T).T for table in tables)))
    return np.concatenate(results)
