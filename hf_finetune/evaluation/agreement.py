"""Agreement of labels and decisions beyond chance, from counts of each class; no confusion matrix is made.

Counts are [..., classes]: ``members`` of a class by label, ``answers`` by decision, ``hits`` by both.
"""

import numpy as np

__all__ = ["cohen_kappa", "matthews_correlation", "weighted_kappa"]


def matthews_correlation(members: np.ndarray, answers: np.ndarray, hits: np.ndarray) -> np.ndarray:
    """Return the correlation of labels and decisions [...]. 0 where all labels or all decisions are alike.

    Source: Gorodkin 2004, the form for several classes; as ``sklearn.metrics.matthews_corrcoef``.
    """
    total = members.sum(axis=-1)
    covariance = hits.sum(axis=-1) * total - (members * answers).sum(axis=-1)
    spread = (total**2 - (members**2).sum(axis=-1)) * (total**2 - (answers**2).sum(axis=-1))
    return np.divide(covariance, np.sqrt(spread), out=np.zeros_like(covariance), where=spread > 0)


def cohen_kappa(members: np.ndarray, answers: np.ndarray, hits: np.ndarray) -> np.ndarray:
    """Return the agreement beyond chance [...], at most 1. nan where labels and decisions are all of one class.

    Source: Cohen 1960; as ``sklearn.metrics.cohen_kappa_score``.
    """
    total = members.sum(axis=-1)
    by_chance = (members * answers).sum(axis=-1) / total
    return _ratio(hits.sum(axis=-1) - by_chance, total - by_chance)


def weighted_kappa(
    members: np.ndarray, answers: np.ndarray, distances: np.ndarray, *, squared: bool
) -> np.ndarray:
    """Return the agreement beyond chance [...] where a confusion counts by the distance of its classes.

    Args:
        members: Counts of each label [..., classes].
        answers: Counts of each decision [..., classes].
        distances: Sum over the examples of |label - decision|, or of its square [...].
        squared: Whether the distance is squared.

    Source: Cohen 1968; as ``sklearn.metrics.cohen_kappa_score`` with linear or quadratic weights.
    """
    total = members.sum(axis=-1)
    if squared:
        order = np.arange(members.shape[-1], dtype=np.float64)
        expected = (members @ order**2 + answers @ order**2) * total
        expected = (expected - 2 * (members @ order) * (answers @ order)) / total
    else:  # E|X - Y| is the sum of F (1 - G) + G (1 - F) over the values of two distributions F and G
        below, said = members.cumsum(axis=-1), answers.cumsum(axis=-1)
        whole = total[..., None]
        expected = (below * (whole - said) + said * (whole - below)).sum(axis=-1) / total
    return 1 - _ratio(distances, expected)


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    return np.divide(above, below, out=np.full_like(above, np.nan, dtype=np.float64), where=below > 0)
