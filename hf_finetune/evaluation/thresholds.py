"""From which probability on a class of multi-label data holds: chosen where F1 is best."""

import numpy as np

from hf_finetune.evaluation.unknown_labels import is_known

__all__ = ["fit_thresholds"]

HALF = 0.5


def fit_thresholds(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Choose a threshold for each class, by the F1 of examples that were not trained on.

    Of thresholds that are as good, the one nearest to 0.5 is taken; a class that all examples have, or none, keeps 0.5.

    Args:
        scores: Probabilities [examples, classes].
        labels: Zeros and ones [examples, classes]; nan where it is not known whether a class holds.

    Returns:
        Thresholds [classes].
    """
    columns = zip(scores.T, labels.T, is_known(labels).T, strict=True)
    return np.array([_best(column[known], members[known]) for column, members, known in columns])


def _best(scores: np.ndarray, members: np.ndarray) -> float:
    if len(np.unique(members)) < 2:
        return HALF
    order = np.argsort(-scores, kind="stable")
    right = np.cumsum(members[order])
    f1 = 2 * right / (np.arange(1, len(scores) + 1) + members.sum())
    ranked = scores[order]
    ends = np.flatnonzero(np.append(ranked[1:] < ranked[:-1], True))  # equal scores are on one side
    candidates = (ranked[ends] + np.append(ranked[1:], 0.0)[ends]) / 2
    best = f1[ends].max()
    good = candidates[f1[ends] >= best - 1e-12]
    return float(good[np.abs(good - HALF).argmin()])
