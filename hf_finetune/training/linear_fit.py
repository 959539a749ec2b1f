"""A linear layer fitted to features: logistic regression for classes, ridge regression for amounts.

Features are centred and scaled for the fit, and that is folded into the layer: it takes them as they are.
"""

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.special import log_expit, log_softmax
from sklearn.linear_model import LogisticRegression, Ridge
from threadpoolctl import threadpool_limits

from hf_finetune.data.labels import Target
from hf_finetune.data.split import strata_of

__all__ = ["FOLDS", "STRENGTHS", "LinearFit", "about_fit", "assign_folds", "fit_best", "fit_linear"]

FOLDS = 5
STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0)
"""Values of scikit-learn's C, the inverse of the L2 penalty, from which a cross-validation chooses."""
ITERATIONS = 1000
MOST_COMPARED = 20
"""Classes of multi-label data, spread evenly, whose held-out loss chooses the penalty of all."""
LARGE = 10**9
"""Examples x features x classes above which the penalty is chosen by one held-out fold and not by all of them."""
SMALL = 10**9
"""Numbers of a product of features and weights up to which one thread is fastest, and the rest in each other's way."""
SURE = 20.0
"""Logit of a class that every example has, or none: its probability is 2e-9 from certain."""
ABSENT = -100.0
"""Logit of a class of single-label data that no example has."""
LEAST = np.log(np.finfo(np.float64).eps)
"""Of a logarithm of a probability, so that one surprise does not outweigh all the rest."""


Models = dict[int, dict[int, LogisticRegression]]
"""Logistic regressions by fold and number of the class."""


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
        labels: Class indices [examples], or the probability of each class times the weight of the example [examples,
            classes]; zeros and ones [examples, classes], nan where it is not known; or amounts [examples].
        target: What the labels are.
        classes: Number of classes; 1 for amounts.
        strengths: To choose from, in ascending order; or the one to take.
        folds: Number of the fold of each example, as ``assign_folds`` gives it; needed to choose.
        factors: For each class the factor on the loss of its examples, of multi-label data on that of its members.
        shifts: For each class what is added to its logit in the loss, and nowhere else. As nothing is charged for the
            size of a bias, that is the same as to take it from the bias in the end.
    """
    if target == "single_label" and labels.ndim == 2:
        labels = labels * (1.0 if factors is None else np.asarray(factors))
        counts = np.ones(len(labels))
    else:
        counts = _counts(labels, target, factors)
    features = np.asarray(features, dtype=np.float64)
    with threadpool_limits(1 if features.size * classes < SMALL else None):
        losses = {}
        if folds is not None:
            losses = _cross_validate(features, labels, target, classes, strengths, folds, counts)
        chosen = min(losses, key=losses.__getitem__, default=strengths[0])
        weight, bias = _fit(features, labels, target, classes, chosen, counts)
    if shifts is not None:
        sure = target == "multi_label" and np.array([_is_sure(column) for column in labels.T])
        bias = bias - np.where(sure, 0.0, shifts)
    return LinearFit(weight, bias, chosen, losses)


def assign_folds(
    labels: Sequence[Any],
    target: Target,
    versions: int,
    seed: int,
    count: int = FOLDS,
    groups: Sequence[int] = (),
) -> np.ndarray:
    """Return the fold of each example; every fold gets its share of every class.

    Versions of one example, and examples of one group, are in one fold. A group is counted as the class of its first
    example. With a single group there is nothing to keep apart, and the groups are ignored.

    Args:
        labels: Class indices, lists of class indices, or regression targets.
        target: Kind of the labels.
        versions: Number of versions of each example, all first ones first.
        seed: Seed of the assignment.
        count: Number of folds.
        groups: Group number of each example; empty if each is its own group.

    Returns:
        Fold numbers [examples x versions], from 0.
    """
    strata: Any = np.zeros(len(labels), dtype=np.int64)
    if target != "regression":
        strata = np.array(strata_of(labels))
    names = groups if len(groups) and len(set(groups)) > 1 else range(len(labels))
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    members = np.array([numbers[name] for name in names], dtype=np.int64)
    first = np.unique(members, return_index=True)[1]
    order = np.lexsort((np.random.default_rng(seed).random(len(first)), strata[first]))
    folds = np.empty(len(first), dtype=np.int64)
    folds[order] = np.arange(len(first)) % count
    return np.tile(folds[members], versions)


def fit_best(
    features: Mapping[str, np.ndarray],
    labels: np.ndarray,
    target: Target,
    classes: int,
    folds: np.ndarray,
) -> tuple[str, LinearFit, dict[str, float]]:
    """Fit a linear layer to each of several kinds of features, and take the one of the least cross-validated loss.

    Args:
        features: [examples, features] of each kind; of equal ones the first is taken.
        labels: See ``fit_linear``.
        target: Kind of the labels.
        classes: Number of classes; 1 for regression.
        folds: From ``assign_folds``.

    Returns:
        The name of the kind, its fit, and the held-out loss of every kind.
    """
    fits = {
        name: fit_linear(values, labels, target, classes, folds=folds) for name, values in features.items()
    }
    losses = {name: min(fit.losses.values()) for name, fit in fits.items()}
    best = min(losses, key=losses.__getitem__)
    return best, fits[best], losses


def about_fit(fit: LinearFit, target: Target) -> dict[str, Any]:
    """Return how a linear layer was fitted, as ``metrics.json`` has it.

    Returns:
        ``method``, the chosen ``C`` (``alpha`` of a ridge regression) and the held-out loss of each value tried.
    """
    ridge = target == "regression"
    name = "alpha" if ridge else "C"

    def shown(strength: float) -> float:
        return float(f"{1 / strength if ridge else strength:.6g}")

    losses = [{name: shown(strength), "loss": loss} for strength, loss in fit.losses.items()]
    method = "ridge" if ridge else "logistic_regression"
    return {"method": method, name: shown(fit.strength), "cross_validation": losses}


def _counts(labels: np.ndarray, target: Target, factors: Sequence[float] | None) -> np.ndarray:
    """Say how much the loss of each example counts: [examples], or [examples, classes] of multi-label data."""
    if target == "multi_label":
        return np.where(labels == 1, 1.0 if factors is None else np.asarray(factors), 1.0) * ~np.isnan(labels)
    if factors is None:
        return np.ones(labels.shape)
    counts: np.ndarray = np.asarray(factors)[labels]
    return counts


def _cross_validate(
    features: np.ndarray,
    labels: np.ndarray,
    target: Target,
    classes: int,
    strengths: Sequence[float],
    folds: np.ndarray,
    counts: np.ndarray,
) -> dict[float, float]:
    """Return the held-out loss of each strength, from the least on until it no longer falls."""
    numbers = np.unique(folds)[: 1 if features.size * classes > LARGE else None]
    features = features.astype(np.float32)  # precise enough to compare, in half the time
    if target == "multi_label" and classes > MOST_COMPARED:
        columns = np.linspace(0, classes - 1, MOST_COMPARED).astype(np.int64)
        labels, counts = labels[:, columns], counts[:, columns]
    models: Models = {}
    losses: dict[float, float] = {}
    for strength in strengths:
        loss = _held_out_loss(features, labels, target, classes, strength, folds, numbers, counts, models)
        falls = loss < min(losses.values(), default=np.inf)
        losses[strength] = loss
        if not falls:
            break
    return losses


def _held_out_loss(
    features: np.ndarray,
    labels: np.ndarray,
    target: Target,
    classes: int,
    strength: float,
    folds: np.ndarray,
    held_out: Iterable[int],
    counts: np.ndarray,
    models: Models,
) -> float:
    """Return the mean loss on held-out folds; each fold's fit starts from that at the strength before."""
    total, examples = 0.0, 0
    for fold in held_out:
        out = folds == fold
        known, classified, weights = features[~out], labels[~out], counts[~out]
        start = models.setdefault(int(fold), {})
        weight, bias = _fit(known, classified, target, classes, strength, weights, start)
        total += (counts[out] * _loss(features[out] @ weight.T + bias, labels[out], target)).sum()
        examples += int(out.sum())
    return float(total / examples)


def _loss(outputs: np.ndarray, labels: np.ndarray, target: Target) -> np.ndarray:
    """Give the loss of each example: cross-entropy in nats (multi-label: that of each class), or the square."""
    if target == "regression":
        return np.square(outputs[:, 0] - labels)
    if target == "single_label" and labels.ndim == 2:
        return -(labels * np.maximum(log_softmax(outputs, axis=1), LEAST)).sum(axis=1)
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
    models: dict[int, LogisticRegression] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Fit on centred and scaled features, and fold their means and scales in.

    Args:
        models: Earlier fits to start from, by number of the class; they are replaced by these. None starts anew.
    """
    means, scales = features.mean(axis=0), _scales(features)
    solve: Callable[..., tuple[np.ndarray, np.ndarray]] = {
        "single_label": _classes,
        "multi_label": _each_class,
        "regression": _amounts,
    }[target]
    with warnings.catch_warnings():
        # of labels with few examples each; that they are classes is known
        warnings.filterwarnings(
            "ignore", message="The number of unique classes is greater", category=UserWarning
        )
        weight, bias = solve((features - means) / scales, labels, classes, strength, counts, models)
    weight = weight / scales
    return weight, bias - weight @ means


def _scales(features: np.ndarray) -> np.ndarray:
    """Return what each feature is divided by: its standard deviation, but no less than the median one.

    Else a feature that hardly varies gets a huge weight, of which the gradients of a stage behind the fit, and lower
    precision, make infinities: all-MiniLM-L6-v2 has one with a deviation of 1e-32.

    Args:
        features: [examples, features].

    Returns:
        [features], above 0.
    """
    deviations = features.std(axis=0)
    varying = deviations[deviations > 0]
    return np.maximum(deviations, np.median(varying) if len(varying) else 1.0)


def _classes(
    features: np.ndarray,
    labels: np.ndarray,
    classes: int,
    strength: float,
    counts: np.ndarray,
    models: dict[int, LogisticRegression] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    weight, bias = np.zeros((classes, features.shape[1])), np.full(classes, ABSENT)
    if labels.ndim == 2:  # each class that an example may have is an example of its own, with that weight
        rows, found_labels = np.nonzero(labels)
        features, counts, labels = features[rows], labels[rows, found_labels], found_labels
    there = np.unique(labels)
    if len(there) == 1:
        bias[there] = 0.0
        return weight, bias
    found = _regression(0, strength, models)
    found.fit(features, labels, sample_weight=counts)
    coefficients, intercepts = found.coef_, found.intercept_
    if len(there) == 2:  # scikit-learn gives the difference of the two
        coefficients = np.concatenate([-coefficients, coefficients]) / 2
        intercepts = np.concatenate([-intercepts, intercepts]) / 2
    weight[there], bias[there] = coefficients, intercepts - intercepts.mean()
    return weight, bias


def _regression(
    number: int, strength: float, models: dict[int, LogisticRegression] | None
) -> LogisticRegression:
    """Return a logistic regression to fit: a new one, or the earlier one of this number to start from."""
    fresh = LogisticRegression(max_iter=ITERATIONS, warm_start=models is not None)
    model = fresh if models is None else models.setdefault(number, fresh)
    return model.set_params(C=strength)


def _each_class(
    features: np.ndarray,
    labels: np.ndarray,
    classes: int,
    strength: float,
    counts: np.ndarray,
    models: dict[int, LogisticRegression] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    weight, bias = np.zeros((labels.shape[1], features.shape[1])), np.zeros(labels.shape[1])
    for index, column in enumerate(labels.T):
        known = ~np.isnan(column)
        if _is_sure(column):
            bias[index] = SURE if column[known].any() else -SURE
            continue
        found = _regression(index, strength, models)
        found.fit(features[known], column[known], sample_weight=counts[known, index])
        weight[index], bias[index] = found.coef_[0], found.intercept_[0]
    return weight, bias


def _is_sure(column: np.ndarray) -> bool:
    """Return whether a class holds for every example of which that is known, or for none."""
    return len(np.unique(column[~np.isnan(column)])) < 2


def _amounts(
    features: np.ndarray,
    labels: np.ndarray,
    classes: int,
    strength: float,
    counts: np.ndarray,
    models: dict[int, LogisticRegression] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    found = Ridge(alpha=1 / strength).fit(features, labels)
    return found.coef_[None], np.array([found.intercept_])
