"""Chance-corrected agreement of labels and decisions, computed from counts per class without a confusion matrix.

Counts have the shape [..., classes]. ``true_counts`` counts the examples whose label is the class, ``predicted_counts``
those whose decision is the class, and ``true_positives`` those for which both are.
"""

import numpy as np

__all__ = ["cohen_kappa", "matthews_correlation", "weighted_kappa"]


def matthews_correlation(
    true_counts: np.ndarray, predicted_counts: np.ndarray, true_positives: np.ndarray
) -> np.ndarray:
    """Compute the Matthews correlation coefficient of labels and decisions.

    Args:
        true_counts: Number of examples of each class by label [..., classes].
        predicted_counts: Number of examples of each class by decision [..., classes].
        true_positives: Number of examples of each class that are decided correctly [..., classes].

    Returns:
        Coefficients [...] in [-1, 1]; 0 where all labels or all decisions are of one class.

    Source: Gorodkin 2004, the multiclass form; as ``sklearn.metrics.matthews_corrcoef``.
    """
    total = true_counts.sum(axis=-1)
    covariance = true_positives.sum(axis=-1) * total - (true_counts * predicted_counts).sum(axis=-1)
    variance_product = (total**2 - (true_counts**2).sum(axis=-1)) * (
        total**2 - (predicted_counts**2).sum(axis=-1)
    )
    return np.divide(
        covariance, np.sqrt(variance_product), out=np.zeros_like(covariance), where=variance_product > 0
    )


def cohen_kappa(
    true_counts: np.ndarray, predicted_counts: np.ndarray, true_positives: np.ndarray
) -> np.ndarray:
    """Compute Cohen's kappa of labels and decisions.

    Args:
        true_counts: Number of examples of each class by label [..., classes].
        predicted_counts: Number of examples of each class by decision [..., classes].
        true_positives: Number of examples of each class that are decided correctly [..., classes].

    Returns:
        Kappa [...], at most 1; nan where labels and decisions are all of one class.

    Source: Cohen 1960; as ``sklearn.metrics.cohen_kappa_score``.
    """
    total = true_counts.sum(axis=-1)
    by_chance = (true_counts * predicted_counts).sum(axis=-1) / total
    return _ratio(true_positives.sum(axis=-1) - by_chance, total - by_chance)


def weighted_kappa(
    true_counts: np.ndarray, predicted_counts: np.ndarray, distances: np.ndarray, *, squared: bool
) -> np.ndarray:
    """Compute the weighted kappa, in which a confusion counts by the distance between its classes.

    Args:
        true_counts: Number of examples of each label [..., classes].
        predicted_counts: Number of examples of each decision [..., classes].
        distances: Sum over the examples of |label - decision|, or of its square [...].
        squared: Whether the distances are squared.

    Returns:
        Kappa [...], at most 1; nan where labels and decisions are all of one class.

    Source: Cohen 1968; as ``sklearn.metrics.cohen_kappa_score`` with linear or quadratic weights.
    """
    total = true_counts.sum(axis=-1)
    if squared:
        order = np.arange(true_counts.shape[-1], dtype=np.float64)
        expected = (true_counts @ order**2 + predicted_counts @ order**2) * total
        expected = (expected - 2 * (true_counts @ order) * (predicted_counts @ order)) / total
    else:  # E|X - Y| is the sum over all values of F (1 - G) + G (1 - F), where F and G are the two CDFs
        label_cdf, decision_cdf = true_counts.cumsum(axis=-1), predicted_counts.cumsum(axis=-1)
        n = total[..., None]
        expected = (label_cdf * (n - decision_cdf) + decision_cdf * (n - label_cdf)).sum(axis=-1) / total
    return 1 - _ratio(distances, expected)


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    return np.divide(
        numerator, denominator, out=np.full_like(numerator, np.nan, dtype=np.float64), where=denominator > 0
    )
