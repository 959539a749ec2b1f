"""LogME: a score of how well frozen features predict labels, without fitting a classifier."""

import numpy as np

__all__ = ["log_me"]

_MAX_UPDATES = 100
_TOLERANCE = 1e-3


def log_me(features: np.ndarray, labels: np.ndarray) -> float:
    """Return the logarithm of maximum evidence, the mean over the outputs, per example.

    For each output, a Bayesian linear regression is fitted whose precisions maximize the evidence of the labels.

    Args:
        features: Features [examples, features].
        labels: Labels [examples, outputs]: zeros and ones for classes, or numbers.

    Returns:
        The score; a higher one is better.

    Source:
        You et al. 2021, LogME: Practical Assessment of Pre-trained Models for Transfer Learning; the update by the
        singular values of the features is from their extended version (JMLR 2022).
    """
    features = np.asarray(features, dtype=np.float64)
    left, singular, _ = np.linalg.svd(features, full_matrices=False)
    used = singular > _TOLERANCE * _TOLERANCE * singular.max(initial=0.0)
    left, singular = left[:, used], singular[used]
    scores = [
        _evidence(left, np.square(singular), column, features.shape) for column in labels.T.astype(np.float64)
    ]
    return float(np.mean(scores))


def _evidence(left: np.ndarray, squares: np.ndarray, label: np.ndarray, shape: tuple[int, int]) -> float:
    """Return the evidence per example for one output.

    Args:
        left: Left singular vectors of the features [examples, rank].
        squares: Squared singular values [rank].
        label: Label of each example [examples].
        shape: Number of examples and of features.
    """
    examples, size = shape
    projected = np.square(left.T @ label)  # squared coordinates of the label in the space of the features
    outside = max(float(label @ label - projected.sum()), 0.0)
    if not len(squares):  # constant features of 0 explain nothing: only the noise is fitted
        return float(0.5 * (np.log(examples / (outside + 1e-12)) - np.log(2 * np.pi) - 1))
    alpha, beta = 1.0, 1.0  # precision of the weights, and of the noise
    for _ in range(_MAX_UPDATES):
        ratio = alpha / beta
        shrinkage = squares + ratio
        effective = (squares / shrinkage).sum()
        weight_norm = (squares * projected / np.square(shrinkage)).sum()
        residual = (np.square(ratio / shrinkage) * projected).sum() + outside
        alpha = effective / (weight_norm + 1e-12)
        beta = max(examples - effective, 1e-12) / (
            residual + 1e-12
        )  # features that are large may fit all labels
        if abs(alpha / beta - ratio) <= _TOLERANCE * ratio:
            break
    shrinkage = squares + alpha / beta
    weight_norm = (squares * projected / np.square(shrinkage)).sum()
    residual = (np.square(alpha / beta / shrinkage) * projected).sum() + outside
    log_determinant = np.log(alpha + beta * squares).sum() + max(size - len(squares), 0) * np.log(alpha)
    evidence = size * np.log(alpha) + examples * np.log(beta) - examples * np.log(2 * np.pi)
    evidence += -beta * residual - alpha * weight_norm - log_determinant
    return float(evidence / (2 * examples))
