"""Unknown labels of multi-label data, which the label arrays represent as nan."""

import numpy as np

__all__ = ["fill_unknown", "has_unknown", "is_known", "mean_of_known"]


def is_known(labels: np.ndarray) -> np.ndarray:
    """Return a boolean mask of the known labels, in the shape of the labels.

    Args:
        labels: Labels of any form, with nan where a class is unknown.
    """
    if np.issubdtype(labels.dtype, np.floating):
        return ~np.isnan(labels)
    return np.ones(labels.shape, dtype=bool)


def has_unknown(labels: np.ndarray) -> bool:
    """Return whether labels are multi-label [examples, classes] and some of them are unknown.

    Args:
        labels: Labels of any form, with nan where a class is unknown.
    """
    return labels.ndim == 2 and not is_known(labels).all()


def mean_of_known(labels: np.ndarray) -> np.ndarray:
    """Return the mean of the known labels: [classes], or a scalar.

    Args:
        labels: Labels [examples, classes] or [examples], with nan where a label is unknown.
    """
    known = is_known(labels)
    mean: np.ndarray = np.where(known, labels, 0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
    return mean


def fill_unknown(labels: np.ndarray, decisions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return labels and decisions with 0 in both where the label is unknown.

    This excludes unknown labels from the metrics: true negatives do not count in precision, recall and F1, and do not
    prevent an exact match.

    Args:
        labels: Zeros, ones and nan [examples, classes]; other labels are returned unchanged.
        decisions: Decisions, in the shape of the labels.
    """
    if not has_unknown(labels):
        return labels, decisions
    known = is_known(labels)
    return np.where(known, labels, 0).astype(np.int64), np.where(known, decisions, 0)
