"""Fit a linear layer to features: logistic regression for classes, ridge regression for continuous targets.

Features are standardized for the fit, and means and scales are folded into the layer, which takes raw features. Sparse
features, such as TF-IDF weights of words, are taken as they are: standardizing would make them dense.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from scipy.sparse import csr_matrix, issparse
from scipy.special import log_expit, log_softmax
from threadpoolctl import threadpool_limits

from hf_finetune.targets import TARGETS
from hf_finetune.targets.labels import TargetName

if TYPE_CHECKING:
    from sklearn.linear_model import LogisticRegression

__all__ = [
    "INVERSE_STRENGTHS",
    "Features",
    "LinearFit",
    "fit_best",
    "fit_linear",
    "fit_metadata",
]

INVERSE_STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0)
"""Values of scikit-learn's C, the inverse regularization strength, from which cross-validation chooses."""
MAX_ITERATIONS = 1000
"""``max_iter`` of ``LogisticRegression`` (L-BFGS)."""
CV_CLASSES = 20
"""Maximum number of classes, evenly spaced, whose held-out loss chooses the penalty for all classes (multi-label)."""
SINGLE_FOLD_ABOVE = 10**9
"""Examples x features x classes above which a single held-out fold, instead of all folds, chooses the penalty."""
SINGLE_THREAD_BELOW = 10**9
"""Examples x features x classes below which a single thread is fastest."""
CONSTANT_CLASS_LOGIT = 20.0
"""Absolute logit of a class that all examples have or none has: the probability is 2e-9 from 1 or 0."""
MISSING_CLASS_LOGIT = -100.0
"""Logit of a class without examples (single-label)."""
MIN_LOG_PROBABILITY = np.log(np.finfo(np.float64).eps)
"""Lower bound of a log-probability, so that a single misclassified example does not dominate the loss."""

Features: TypeAlias = "np.ndarray | csr_matrix"
"""Features [examples, features], dense or sparse."""
Regressions = dict[int, "LogisticRegression"]
"""Logistic regressions by class index; single-label data has only one, with index 0."""


@dataclass(frozen=True)
class LinearFit:
    """Fitted linear layer.

    Attributes:
        weight: Weights for raw features [outputs, features].
        bias: Biases [outputs].
        inverse_strength: Chosen inverse of the regularization strength: scikit-learn's C of a logistic regression,
            1 / alpha of a ridge regression.
        losses: Mean held-out loss by inverse strength tried; empty if it was not cross-validated.
    """

    weight: np.ndarray
    bias: np.ndarray
    inverse_strength: float
    losses: dict[float, float] = field(default_factory=dict)

    def __call__(self, features: Features) -> np.ndarray:
        """Return logits, or continuous predictions, [examples, outputs] of features [examples, features]."""
        return np.asarray(features @ self.weight.T + self.bias)


def fit_linear(
    features: Features,
    labels: np.ndarray,
    target: TargetName,
    classes: int,
    inverse_strengths: Sequence[float] = INVERSE_STRENGTHS,
    folds: np.ndarray | None = None,
    class_weights: Sequence[float] | None = None,
    logit_adjustments: Sequence[float] | None = None,
) -> LinearFit:
    """Fit a linear layer with the regularization of the lowest cross-validated loss.

    Regularization strengths are tried in descending order until the loss no longer falls.

    Args:
        features: Features [examples, features].
        labels: Single-label: class indices [examples], or probability of each class times the weight of the example
            [examples, classes]. Multi-label: zeros and ones [examples, classes], nan where unknown. Regression:
            continuous targets [examples].
        target: Label type.
        classes: Number of classes; 1 for regression.
        inverse_strengths: Values of C to choose from, in ascending order; without ``folds`` the first one is used.
        folds: Fold number of each example [examples], from ``assign_folds``; None skips the cross-validation.
        class_weights: Factor on the loss of each class's examples [classes] (multi-label: positive labels); None is 1.
        logit_adjustments: Terms added to the logits in the loss only [classes]. The bias is not penalized, so
            subtracting them from the fitted bias is equivalent.

    Returns:
        The linear layer, the chosen inverse strength and the cross-validated losses.

    Raises:
        ValueError: If no solver minimizes the loss of such labels.
    """
    if TARGETS[target].linear_solver is None:
        raise ValueError(f"no solver minimizes the loss of {target} labels")
    if TARGETS[target].is_exclusive and labels.ndim == 2:
        labels = labels * (1.0 if class_weights is None else np.asarray(class_weights))
        sample_weights = np.ones(len(labels))
    else:
        sample_weights = _sample_weights(labels, target, class_weights)
    features = _in_double_precision(features)
    with threadpool_limits(_threads(features, classes)):
        losses = {}
        if folds is not None:
            losses = _cross_validate(
                features, labels, target, classes, inverse_strengths, folds, sample_weights
            )
        chosen = min(losses, key=losses.__getitem__, default=inverse_strengths[0])
        weight, bias = _fit(features, labels, target, classes, chosen, sample_weights)
    if logit_adjustments is not None:
        constant = TARGETS[target].has_several_classes and np.array(
            [_is_constant(column) for column in labels.T]
        )
        bias = bias - np.where(constant, 0.0, logit_adjustments)
    return LinearFit(weight, bias, chosen, losses)


def fit_best(
    features: Mapping[str, Features],
    labels: np.ndarray,
    target: TargetName,
    classes: int,
    folds: np.ndarray,
) -> tuple[str, LinearFit, dict[str, float]]:
    """Fit a linear layer to several kinds of features, and select the kind of the lowest cross-validated loss.

    Args:
        features: Features [examples, features] by the name of their kind; of equal losses the first kind is selected.
        labels: Labels as in ``fit_linear``.
        target: Label type.
        classes: Number of classes; 1 for regression.
        folds: Fold number of each example, from ``assign_folds``.

    Returns:
        The name of the selected kind, its fit, and the held-out loss of every kind.
    """
    tried = {
        name: _held_out_losses(values, labels, target, classes, folds) for name, values in features.items()
    }
    lowest = {name: min(losses.values()) for name, losses in tried.items()}
    best = min(lowest, key=lowest.__getitem__)
    chosen = min(tried[best], key=tried[best].__getitem__)
    fit = fit_linear(features[best], labels, target, classes, (chosen,))
    return best, replace(fit, losses=tried[best]), lowest


def _held_out_losses(
    features: Features, labels: np.ndarray, target: TargetName, classes: int, folds: np.ndarray
) -> dict[float, float]:
    """Return the cross-validated loss by inverse strength."""
    features, weights = _in_double_precision(features), _sample_weights(labels, target, None)
    with threadpool_limits(_threads(features, classes)):
        return _cross_validate(features, labels, target, classes, INVERSE_STRENGTHS, folds, weights)


def _in_double_precision(features: Features) -> Features:
    return (features if issparse(features) else np.asarray(features)).astype(np.float64)


def _threads(features: Features, classes: int) -> int | None:
    """Return the number of threads of a fit; None is as many as there are cores."""
    return 1 if features.size * classes < SINGLE_THREAD_BELOW else None


def fit_metadata(fit: LinearFit, target: TargetName) -> dict[str, Any]:
    """Return the entry of ``metrics.json`` about a fit.

    Args:
        fit: Fitted head.
        target: Label type.

    Returns:
        ``method``, the chosen ``C`` (``alpha`` of a ridge regression) and ``cross_validation``, the held-out loss of
        each value tried.
    """
    method = TARGETS[target].linear_solver
    ridge = method == "ridge"
    name = "alpha" if ridge else "C"

    def shown(inverse_strength: float) -> float:
        return float(f"{1 / inverse_strength if ridge else inverse_strength:.6g}")

    losses = [{name: shown(inverse_strength), "loss": loss} for inverse_strength, loss in fit.losses.items()]
    return {"method": method, name: shown(fit.inverse_strength), "cross_validation": losses}


def _sample_weights(
    labels: np.ndarray, target: TargetName, class_weights: Sequence[float] | None
) -> np.ndarray:
    """Return example weights [examples], or label weights [examples, classes] (multi-label; 0 for unknown labels)."""
    if TARGETS[target].has_several_classes:
        positive_weights = 1.0 if class_weights is None else np.asarray(class_weights)
        return np.where(labels == 1, positive_weights, 1.0) * ~np.isnan(labels)
    if class_weights is None:
        return np.ones(labels.shape)
    sample_weights: np.ndarray = np.asarray(class_weights)[labels]
    return sample_weights


def _cross_validate(
    features: Features,
    labels: np.ndarray,
    target: TargetName,
    classes: int,
    inverse_strengths: Sequence[float],
    folds: np.ndarray,
    sample_weights: np.ndarray,
) -> dict[float, float]:
    """Return the held-out loss by inverse strength, in ascending order until the loss no longer falls."""
    numbers = np.unique(folds)[: 1 if features.size * classes > SINGLE_FOLD_ABOVE else None]
    features = features.astype(np.float32)  # precise enough for the comparison, in half the time
    if TARGETS[target].has_several_classes and classes > CV_CLASSES:
        columns = np.linspace(0, classes - 1, CV_CLASSES).astype(np.int64)
        labels, sample_weights = labels[:, columns], sample_weights[:, columns]
    models: dict[int, Regressions] = {}
    losses: dict[float, float] = {}
    for inverse_strength in inverse_strengths:
        total, examples = 0.0, 0
        for fold in numbers.tolist():
            held_out = folds == fold
            start = models.setdefault(fold, {})  # its fit with the previous value
            weight, bias = _fit(
                features[~held_out],
                labels[~held_out],
                target,
                classes,
                inverse_strength,
                sample_weights[~held_out],
                start,
            )
            total += (
                sample_weights[held_out]
                * _loss(features[held_out] @ weight.T + bias, labels[held_out], target)
            ).sum()
            examples += int(held_out.sum())
        loss = float(total / examples)
        falls = loss < min(losses.values(), default=np.inf)
        losses[inverse_strength] = loss
        if not falls:
            break
    return losses


def _loss(outputs: np.ndarray, labels: np.ndarray, target: TargetName) -> np.ndarray:
    """Compute the loss of each example [examples], or of each label [examples, classes] (multi-label).

    The loss is the cross-entropy in nats, or the squared error for regression.
    """
    if TARGETS[target].has_squared_error:
        return np.square(outputs[:, 0] - labels)
    if TARGETS[target].is_exclusive and labels.ndim == 2:
        return -(labels * np.maximum(log_softmax(outputs, axis=1), MIN_LOG_PROBABILITY)).sum(axis=1)
    if TARGETS[target].is_exclusive:
        return -np.maximum(log_softmax(outputs, axis=1)[np.arange(len(labels)), labels], MIN_LOG_PROBABILITY)
    return -np.maximum(log_expit(np.where(labels == 1, outputs, -outputs)), MIN_LOG_PROBABILITY)


def _fit(
    features: Features,
    labels: np.ndarray,
    target: TargetName,
    classes: int,
    inverse_strength: float,
    sample_weights: np.ndarray,
    models: Regressions | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Return weight [outputs, features] and bias [outputs] for raw features, of a fit on standardized dense features.

    ``models`` holds earlier fits for a warm start, and is updated in place; None starts from scratch.
    """
    if issparse(features):
        return _solve(features, labels, target, classes, inverse_strength, sample_weights, models)
    means, scales = features.mean(axis=0), _scales(features)
    standardized = (features - means) / scales
    weight, bias = _solve(standardized, labels, target, classes, inverse_strength, sample_weights, models)
    weight = weight / scales
    return weight, bias - weight @ means


def _solve(
    features: Features,
    labels: np.ndarray,
    target: TargetName,
    classes: int,
    inverse_strength: float,
    sample_weights: np.ndarray,
    models: Regressions | None,
) -> tuple[np.ndarray, np.ndarray]:
    """Return weight and bias of the linear layer of the lowest penalized loss."""
    with warnings.catch_warnings():
        # scikit-learn suspects a regression problem if the classes have few examples each
        warnings.filterwarnings(
            "ignore", message="The number of unique classes is greater", category=UserWarning
        )
        if TARGETS[target].is_exclusive:
            return _fit_classes(features, labels, classes, inverse_strength, sample_weights, models)
        if TARGETS[target].has_several_classes:
            return _fit_each_class(features, labels, inverse_strength, sample_weights, models)
        return _fit_ridge(features, labels, inverse_strength)


def _scales(features: np.ndarray) -> np.ndarray:
    """Return the divisor of each feature: its standard deviation, but at least the median standard deviation.

    Otherwise a nearly constant feature gets a huge weight, which overflows in lower precision and in the gradients of
    later stages: all-MiniLM-L6-v2 has one with a standard deviation of 1e-32.
    """
    deviations = features.std(axis=0)
    varying = deviations[deviations > 0]
    return np.maximum(deviations, np.median(varying) if len(varying) else 1.0)


def _fit_classes(
    features: Features,
    labels: np.ndarray,
    classes: int,
    inverse_strength: float,
    sample_weights: np.ndarray,
    models: Regressions | None,
) -> tuple[np.ndarray, np.ndarray]:
    weight, bias = np.zeros((classes, features.shape[1])), np.full(classes, MISSING_CLASS_LOGIT)
    if labels.ndim == 2:  # one row per example and class with a probability, weighted by it
        rows, row_labels = np.nonzero(labels)
        features, sample_weights, labels = features[rows], labels[rows, row_labels], row_labels
    present = np.unique(labels)
    if len(present) == 1:
        bias[present] = 0.0
        return weight, bias
    regression = _regression(0, inverse_strength, models)
    regression.fit(features, labels, sample_weight=sample_weights)
    coefficients, intercepts = regression.coef_, regression.intercept_
    if len(present) == 2:  # scikit-learn returns the difference of the two classes
        coefficients = np.concatenate([-coefficients, coefficients]) / 2
        intercepts = np.concatenate([-intercepts, intercepts]) / 2
    weight[present], bias[present] = coefficients, intercepts - intercepts.mean()
    return weight, bias


def _regression(number: int, inverse_strength: float, models: Regressions | None) -> "LogisticRegression":
    """Return a logistic regression to fit: a new one, or that of the same ``number`` in ``models`` for a warm start."""
    from sklearn.linear_model import LogisticRegression

    model = None if models is None else models.get(number)
    if model is None:
        model = LogisticRegression(max_iter=MAX_ITERATIONS, warm_start=models is not None)
    if models is not None:
        models[number] = model
    return model.set_params(C=inverse_strength)


def _fit_each_class(
    features: Features,
    labels: np.ndarray,
    inverse_strength: float,
    sample_weights: np.ndarray,
    models: Regressions | None,
) -> tuple[np.ndarray, np.ndarray]:
    weight, bias = np.zeros((labels.shape[1], features.shape[1])), np.zeros(labels.shape[1])
    for index, column in enumerate(labels.T):
        known = ~np.isnan(column)
        if _is_constant(column):
            bias[index] = CONSTANT_CLASS_LOGIT if column[known].any() else -CONSTANT_CLASS_LOGIT
            continue
        regression = _regression(index, inverse_strength, models)
        regression.fit(features[known], column[known], sample_weight=sample_weights[known, index])
        weight[index], bias[index] = regression.coef_[0], regression.intercept_[0]
    return weight, bias


def _is_constant(column: np.ndarray) -> bool:
    """Return whether the known labels of a class are all 1 or all 0."""
    return len(np.unique(column[~np.isnan(column)])) < 2


def _fit_ridge(
    features: Features, labels: np.ndarray, inverse_strength: float
) -> tuple[np.ndarray, np.ndarray]:
    from sklearn.linear_model import Ridge

    ridge = Ridge(alpha=1 / inverse_strength).fit(features, labels)
    return ridge.coef_[None], np.array([ridge.intercept_])
