"""Decision thresholds for multi-label classification, fitted to maximize the F1 of each class."""

import numpy as np

from hf_finetune.targets.unknown_labels import is_known

__all__ = ["fit_thresholds"]

DEFAULT_THRESHOLD = 0.5


def fit_thresholds(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Fit the threshold of each class that maximizes its F1.

    Ties are resolved in favor of the threshold nearest to 0.5; a class that all examples or none belong to keeps 0.5.

    Args:
        scores: Probabilities [examples, classes] of examples that were not used for training.
        labels: Zeros and ones [examples, classes]; nan marks an unknown label.

    Returns:
        Thresholds [classes].
    """
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
