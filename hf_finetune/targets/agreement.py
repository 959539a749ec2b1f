"""Chance-corrected agreement of labels and decisions, computed from counts per class without a confusion matrix.

Counts have the shape [..., classes]. ``true_counts`` counts the examples whose label is the class, ``predicted_counts``
those whose decision is the class, and ``true_positives`` those for which both are.
"""

import numpy as np

__all__ = ["cohen_kappa", "matthews_correlation", "weighted_kappa"]


def matthews_correlation(members: np.ndarray, answers: np.ndarray, hits: np.ndarray) -> np.ndarray:
    """Compute the Matthews correlation coefficient of labels and decisions.

    Args:
        members: Number of examples of each class by label [..., classes].
        answers: Number of examples of each class by decision [..., classes].
        hits: Number of examples of each class that are decided correctly [..., classes].

    Returns:
        Coefficients [...] in [-1, 1]; 0 where all labels or all decisions are of one class.

    Source: Gorodkin 2004, the multiclass form; as ``sklearn.metrics.matthews_corrcoef``.
    """
    total = members.sum(axis=-1)
    covariance = hits.sum(axis=-1) * total - (members * answers).sum(axis=-1)
    spread = (total**2 - (members**2).sum(axis=-1)) * (total**2 - (answers**2).sum(axis=-1))
    return np.divide(covariance, np.sqrt(spread), out=np.zeros_like(covariance), where=spread > 0)


def cohen_kappa(members: np.ndarray, answers: np.ndarray, hits: np.ndarray) -> np.ndarray:
    """Compute Cohen's kappa of labels and decisions.

    Args:
        members: Number of examples of each class by label [..., classes].
        answers: Number of examples of each class by decision [..., classes].
        hits: Number of examples of each class that are decided correctly [..., classes].

    Returns:
        Kappa [...], at most 1; nan where labels and decisions are all of one class.

    Source: Cohen 1960; as ``sklearn.metrics.cohen_kappa_score``.
    """
    total = members.sum(axis=-1)
    by_chance = (members * answers).sum(axis=-1) / total
    return _ratio(hits.sum(axis=-1) - by_chance, total - by_chance)


def weighted_kappa(
    members: np.ndarray, answers: np.ndarray, distances: np.ndarray, *, squared: bool
) -> np.ndarray:
    """Compute the weighted kappa, in which a confusion counts by the distance between its classes.

    Args:
        members: Number of examples of each label [..., classes].
        answers: Number of examples of each decision [..., classes].
        distances: Sum over the examples of |label - decision|, or of its square [...].
        squared: Whether the distances are squared.

    Returns:
        Kappa [...], at most 1; nan where labels and decisions are all of one class.

    Source: Cohen 1968; as ``sklearn.metrics.cohen_kappa_score`` with linear or quadratic weights.
    """
    total = members.sum(axis=-1)
    if squared:
        order = np.arange(members.shape[-1], dtype=np.float64)
        expected = (members @ order**2 + answers @ order**2) * total
        expected = (expected - 2 * (members @ order) * (answers @ order)) / total
    else:  # E|X - Y| is the sum over all values of F (1 - G) + G (1 - F), where F and G are the two CDFs
        label_cdf, decision_cdf = members.cumsum(axis=-1), answers.cumsum(axis=-1)
        n = total[..., None]
        expected = (label_cdf * (n - decision_cdf) + decision_cdf * (n - label_cdf)).sum(axis=-1) / total
    return 1 - _ratio(distances, expected)


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    return np.divide(above, below, out=np.full_like(above, np.nan, dtype=np.float64), where=below > 0)
