"""Labels of which the data does not say whether they hold: nan in the labels of multi-label data."""

import numpy as np

__all__ = ["fill_unknown", "has_unknown", "is_known"]


def is_known(labels: np.ndarray) -> np.ndarray:
    """Return which labels are known, in the shape of the labels."""
    if np.issubdtype(labels.dtype, np.floating):
        return ~np.isnan(labels)
    return np.ones(labels.shape, dtype=bool)


def has_unknown(labels: np.ndarray) -> bool:
    """Return whether labels of multi-label data [examples, classes] are not all known."""
    return labels.ndim == 2 and not is_known(labels).all()


def fill_unknown(labels: np.ndarray, decisions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return labels and decisions with 0 in both where the label is unknown.

    A class that is rightly said not to hold has no part in precision, recall and F1, and does not hinder an exact
    match.

    Args:
        labels: Zeros, ones and nan [examples, classes]; other labels stay as they are.
        decisions: In the shape of the labels.
    """
    if not has_unknown(labels):
        return labels, decisions
    known = is_known(labels)
    return np.where(known, labels, 0).astype(np.int64), np.where(known, decisions, 0)
