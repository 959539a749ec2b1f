"""Decision thresholds for multi-label classification, fitted to maximize F1."""

import numpy as np

from hf_finetune.targets.decision_rule import DEFAULT_THRESHOLD
from hf_finetune.targets.unknown_labels import is_known

__all__ = ["fit_thresholds"]


def fit_thresholds(scores: np.ndarray, labels: np.ndarray, *, common: bool = False) -> np.ndarray:
    """Fit the threshold of each class that maximizes its F1, or one that maximizes the micro-averaged F1.

    Ties are resolved in favor of the threshold nearest to 0.5; a class that all examples or none belong to keeps 0.5.

    Args:
        scores: Probabilities [examples, classes] of examples that were not used for training.
        labels: Zeros and ones [examples, classes]; nan marks an unknown label.
        common: Whether all classes have the same threshold.

    Returns:
        Thresholds [classes].
    """
    if common:
        known = is_known(labels)
        return np.full(labels.shape[1], _best(scores[known], labels[known]))
    columns = zip(scores.T, labels.T, is_known(labels).T, strict=True)
    return np.array([_best(column[known], members[known]) for column, members, known in columns])


def _best(scores: np.ndarray, members: np.ndarray) -> float:
    if len(np.unique(members)) < 2:
        return DEFAULT_THRESHOLD
    order = np.argsort(-scores, kind="stable")
    true_positives = np.cumsum(members[order])
    f1 = 2 * true_positives / (np.arange(1, len(scores) + 1) + members.sum())
    ranked = scores[order]
    # a threshold cannot separate equal scores
    ends = np.flatnonzero(np.append(ranked[1:] < ranked[:-1], True))
    candidates = (ranked[ends] + np.append(ranked[1:], 0.0)[ends]) / 2
    best = f1[ends].max()
    best_candidates = candidates[f1[ends] >= best - 1e-12]
    return float(best_candidates[np.abs(best_candidates - DEFAULT_THRESHOLD).argmin()])
