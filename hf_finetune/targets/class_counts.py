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

__all__ = ["average_score", "kappa_statistic", "of_all_classes", "of_one_class"]

Combine = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
"""Function from true counts, predicted counts and true positives [resamples, classes] to a metric [resamples]."""
Table: TypeAlias = Any
"""Array of booleans [examples, classes], or the same as a sparse array of scipy."""

sparse = LazyModule("scipy.sparse")

_LEAST_COUNT = 0.5
"""Smallest nonzero denominator: that of F1 is half the number of labels and decisions."""
_CELLS = 200_000
"""Maximum size of a temporary array; small enough to stay in the processor's cache."""


def of_all_classes(combine: Combine, examples: ScoredExamples) -> Statistic:
    """Return the function that computes a metric of resamples from the counts of all classes.

    Args:
        combine: Function that computes the metric from the counts.
        examples: Labels and scores.
    """
    labels, decisions = examples.filled
    if labels.ndim == 1:  # classes that are neither a label nor a decision do not affect these metrics
        occurring, places = np.unique(np.concatenate([labels, decisions]), return_inverse=True)
        members, answers = (_indicator(array, len(occurring)) for array in np.split(places, 2))
    else:
        members, answers = labels.astype(bool), decisions.astype(bool)
    return partial(_by_class, members, answers, combine)


def of_one_class(score: str, index: int, examples: ScoredExamples) -> Statistic:
    """Return the function that computes precision, recall or F1 of one class for resamples.

    Args:
        score: ``precision``, ``recall`` or ``f1``.
        index: Index of the class.
        examples: Labels and scores.
    """
    members, answers = (
        (array[:, [index]] == 1) if array.ndim == 2 else (array == index)[:, None]
        for array in examples.filled
    )
    return partial(_by_class, members, answers, partial(average_score, score, "micro"))


def kappa_statistic(power: int, examples: ScoredExamples) -> Statistic:
    """Return the function that computes the weighted kappa of resamples.

    Args:
        power: 1 for linear weights, 2 for quadratic ones.
        examples: Labels and scores of single-label data.
    """
    arrays = examples.labels, examples.decisions
    members, answers = (_indicator(array, examples.scores.shape[1]).T.astype(np.float64) for array in arrays)
    distances = np.abs(examples.labels - examples.decisions).astype(np.float64) ** power

    def compute(counts: np.ndarray) -> np.ndarray:
        tables = (members @ counts.T).T, (answers @ counts.T).T
        return weighted_kappa(*tables, counts @ distances, squared=power == 2)

    return compute


def average_score(
    score: str, average: str, members: np.ndarray, answers: np.ndarray, hits: np.ndarray
) -> np.ndarray:
    """Compute precision, recall or F1, averaged over the classes, as in scikit-learn.

    Args:
        score: ``precision``, ``recall`` or ``f1``.
        average: ``micro``, ``weighted``, ``macro`` (over classes in labels or decisions), or ``balanced`` (over
            classes in labels).
        members: Number of examples of each class by label [resamples, classes].
        answers: Number of examples of each class by decision [resamples, classes].
        hits: Number of examples of each class that are decided correctly [resamples, classes].

    Returns:
        Averages [resamples]; 0 for 0 / 0.
    """
    if average == "micro":
        members, answers, hits = (table.sum(axis=1, keepdims=True) for table in (members, answers, hits))
    either = members + answers
    of = {"precision": answers, "recall": members, "f1": either / 2}[score]
    values = hits / np.maximum(of, _LEAST_COUNT)  # a class without counts has no hits, and so the value 0
    if average == "micro":
        return values[:, 0]
    if average == "weighted":
        above, total = (values * members).sum(axis=1), members.sum(axis=1)
    else:
        above = values.sum(axis=1)
        total = np.count_nonzero(members if average == "balanced" else either, axis=1).astype(np.float64)
    return np.divide(above, total, out=np.zeros_like(total), where=total > 0)


def _indicator(indices: np.ndarray, classes: int) -> Table:
    rows = np.arange(len(indices))
    return sparse.csr_array((np.ones(len(indices), dtype=bool), (rows, indices)), (len(indices), classes))


def _by_class(members: Table, answers: Table, combine: Combine, counts: np.ndarray) -> np.ndarray:
    """Compute a metric from the numbers of labels, decisions and correct decisions per class and resample.

    Args:
        members: Whether the label of an example is a class [examples, classes].
        answers: Whether the decision for an example is a class [examples, classes].
        combine: Function that computes the metric from the counts.
        counts: Counts of the examples [resamples, examples].

    Returns:
        Metric of each resample [resamples].
    """
    hits = members & answers if isinstance(members, np.ndarray) else members.multiply(answers)
    tables = [table.T.astype(np.float64) for table in (members, answers, hits)]
    pieces = max(1, -(-counts.shape[0] * members.shape[1] // _CELLS))
    results = []
    for rows in np.array_split(counts, pieces):
        results.append(combine(*((table @ rows.T).T for table in tables)))
    return np.concatenate(results)
