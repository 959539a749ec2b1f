"""A linear layer fitted to features: logistic regression for classes, ridge regression for amounts.

Features are standardised for the fit, and that is folded into the layer: it takes them as they are.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.special import log_expit, log_softmax
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from hf_finetune.data.labels import Target
from hf_finetune.data.split import strata_of

__all__ = ["FOLDS", "STRENGTHS", "LinearFit", "assign_folds", "fit_linear"]

FOLDS = 5
STRENGTHS = (1e-3, 1e-2, 1e-1, 1.0, 10.0)
"""scikit-learn's C, the weight of the data beside that of the penalty, that a cross-validation chooses from."""
ITERATIONS = 1000
EXACT, ROUGH = 1e-4, 1e-3
"""scikit-learn's tolerance: of what is kept, and of what is only compared."""
SMALL = 10**9
"""Numbers of a product of features and weights up to which one thread is fastest, and the rest in each other's way."""
SURE = 20.0
"""Logit of a class that every example has, or none: its probability is 2e-9 from certain."""
ABSENT = -100.0
"""Logit of a class of single-label data that no example has."""
LEAST = np.log(np.finfo(np.float64).eps)
"""Of a logarithm of a probability, so that one surprise does not outweigh all the rest."""


@dataclass(frozen=True)
class LinearFit:
    """A linear layer, and how it was found.

    Attributes:
        weight: [outputs, features], for features as they are.
        bias: [outputs].
        strength: scikit-learn's C of a logistic regression, 1 / alpha of a ridge regression.
        losses: Mean loss on the examples held out, of each strength that was tried; empty if there was one to take.
    """

    weight: np.ndarray
    bias: np.ndarray
    strength: float
    losses: dict[float, float] = field(default_factory=dict)

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """Give logits, or amounts, [examples, outputs] of features [examples, features]."""
        return features @ self.weight.T + self.bias


def fit_linear(
    features: np.ndarray,
    labels: np.ndarray,
    target: Target,
    classes: int,
    strengths: Sequence[float] = STRENGTHS,
    folds: np.ndarray | None = None,
    factors: Sequence[float] | None = None,
    shifts: Sequence[float] | None = None,
) -> LinearFit:
    """Fit a linear layer; of several strengths the one is taken whose loss on held-out examples is least.

    Strengths are tried from the least on, until the loss grows again.

    Args:
        features: [examples, features].
        labels: Class indices [examples], zeros and ones [examples, classes], or amounts [examples].
        target: What the labels are.
        classes: Number of classes; 1 for amounts.
        strengths: To choose from, in ascending order; or the one to take.
        folds: Number of the fold of each example, as ``assign_folds`` gives it; needed to choose.
        factors: For each class the factor on the loss of its examples, of multi-label data on that of its members.
        shifts: For each class what is added to its logit in the loss, and nowhere else. As nothing is charged for the
            size of a bias, that is the same as to take it from the bias in the end.
    """
    counts = _counts(labels, target, factors)
    features = np.asarray(features, dtype=np.float64)
    losses: dict[float, float] = {}
    chosen = strengths[0]
    with threadpool_limits(1 if features.size * classes < SMALL else None):
        for strength in strengths:
            if folds is None:
                break
            losses[strength] = _held_out_loss(features, labels, target, classes, strength, folds, counts)
            if losses[strength] > losses[chosen]:
                break
            chosen = strength
        weight, bias = _fit(features, labels, target, classes, chosen, counts)
    if shifts is not None:
        sure = target == "multi_label" and np.ptp(labels, axis=0) == 0
        bias = bias - np.where(sure, 0.0, shifts)
    return LinearFit(weight, bias, chosen, losses)


def assign_folds(
    labels: Sequence[Any], target: Target, versions: int, seed: int, count: int = FOLDS
) -> np.ndarray:
    """Deal examples to folds, each fold its share of every class; versions of one example go to one fold.

    Args:
        labels: Class indices, lists of class indices, or amounts.
        target: What the labels are.
        versions: Number of versions of each example, all first ones first.
        seed: Chooses which examples of a class go where.
        count: Number of folds.

    Returns:
        Number of the fold [examples x versions].
    """
    strata: Any = np.zeros(len(labels), dtype=np.int64)
    if target != "regression":
        strata = np.array(strata_of(labels))
    order = np.lexsort((np.random.default_rng(seed).random(len(labels)), strata))
    folds = np.empty(len(labels), dtype=np.int64)
    folds[order] = np.arange(len(labels)) % count
    return np.tile(folds, versions)


def _counts(labels: np.ndarray, target: Target, factors: Sequence[float] | None) -> np.ndarray:
    """Say how much the loss of each example counts: [examples], or [examples, classes] of multi-label data."""
    if factors is None:
        return np.ones(labels.shape)
    if target == "multi_label":
        return np.where(labels == 1, np.asarray(factors), 1.0)
    counts: np.ndarray = np.asarray(factors)[labels]
    return counts


def _held_out_loss(
    features: np.ndarray,
    labels: np.ndarray,
    target: Target,
    classes: int,
    strength: float,
    folds: np.ndarray,
    counts: np.ndarray,
) -> float:
    total = 0.0
    for fold in np.unique(folds):
        out = folds == fold
        weight, bias = _fit(features[~out], labels[~out], target, classes, strength, counts[~out], ROUGH)
        total += (counts[out] * _loss(features[out] @ weight.T + bias, labels[out], target)).sum()
    return total / len(labels)


def _loss(outputs: np.ndarray, labels: np.ndarray, target: Target) -> np.ndarray:
    """Give the loss of each example: cross-entropy in nats (multi-label: that of each class), or the square."""
    if target == "regression":
        return np.square(outputs[:, 0] - labels)
    if target == "single_label":
        return -np.maximum(log_softmax(outputs, axis=1)[np.arange(len(labels)), labels], LEAST)
    return -np.maximum(log_expit(np.where(labels == 1, outputs, -outputs)), LEAST)


def _fit(
    features: np.ndarray,
    labels: np.ndarray,
    target: Target,
    classes: int,
    strength: float,
    counts: np.ndarray,
    tolerance: float = EXACT,
) -> tuple[np.ndarray, np.ndarray]:
    """Fit on standardised features, and fold their means and deviations in."""
    scaler = StandardScaler().fit(features)
    solve: Callable[
        [np.ndarray, np.ndarray, int, float, np.ndarray, float], tuple[np.ndarray, np.ndarray]
    ] = {
        "single_label": _classes,
        "multi_label": _each_class,
        "regression": _amounts,
    }[target]
    weight, bias = solve(scaler.transform(features), labels, classes, strength, counts, tolerance)
    weight = weight / scaler.scale_
    return weight, bias - weight @ scaler.mean_


def _classes(
    features: np.ndarray,
    labels: np.ndarray,
    classes: int,
    strength: float,
    counts: np.ndarray,
    tolerance: float,
) -> tuple[np.ndarray, np.ndarray]:
    weight, bias = np.zeros((classes, features.shape[1])), np.full(classes, ABSENT)
    there = np.unique(labels)
    if len(there) == 1:
        bias[there] = 0.0
        return weight, bias
    found = LogisticRegression(C=strength, tol=tolerance, max_iter=ITERATIONS)
    found.fit(features, labels, sample_weight=counts)
    coefficients, intercepts = found.coef_, found.intercept_
    if len(there) == 2:  # scikit-learn gives the difference of the two
        coefficients = np.concatenate([-coefficients, coefficients]) / 2
        intercepts = np.concatenate([-intercepts, intercepts]) / 2
    weight[there], bias[there] = coefficients, intercepts - intercepts.mean()
    return weight, bias


def _each_class(
    features: np.ndarray,
    labels: np.ndarray,
    classes: int,
    strength: float,
    counts: np.ndarray,
    tolerance: float,
) -> tuple[np.ndarray, np.ndarray]:
    weight, bias = np.zeros((classes, features.shape[1])), np.zeros(classes)
    for index, column in enumerate(labels.T):
        if np.ptp(column) == 0:
            bias[index] = SURE if column[0] else -SURE
            continue
        found = LogisticRegression(C=strength, tol=tolerance, max_iter=ITERATIONS)
        found.fit(features, column, sample_weight=counts[:, index])
        weight[index], bias[index] = found.coef_[0], found.intercept_[0]
    return weight, bias


def _amounts(
    features: np.ndarray,
    labels: np.ndarray,
    classes: int,
    strength: float,
    counts: np.ndarray,
    tolerance: float,
) -> tuple[np.ndarray, np.ndarray]:
    found = Ridge(alpha=1 / strength).fit(features, labels)
    return found.coef_[None], np.array([found.intercept_])
