"""Baselines without a checkpoint: models of simple features of the examples, such as statistics of a sound."""

import logging
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
from scipy.sparse import issparse

from hf_finetune.cache.cut_point import CacheUnavailableError
from hf_finetune.data.prepare import LabeledData
from hf_finetune.evaluation.linear_probe import Probe, check_work
from hf_finetune.evaluation.metrics import labels_of, probabilities
from hf_finetune.fields.lazy_module import LazyModule
from hf_finetune.recipe.schema import Recipe
from hf_finetune.targets import TARGETS
from hf_finetune.tasks.examples import SimpleFeatures
from hf_finetune.training.linear_fit import Features, fit_best, fit_metadata
from hf_finetune.training.linear_folds import assign_folds

__all__ = ["simple_baselines"]

logger = logging.getLogger(__name__)

_TREES = [
    {"max_iter": [trees], "max_leaf_nodes": [leaves], "learning_rate": [0.05]}
    for leaves, trees in ((7, 50), (7, 150), (31, 50), (31, 150))
]
"""Settings of gradient boosting from which cross-validation chooses, the smallest model first."""
MAX_BOOSTING_CELLS = 2_000_000
"""Largest number of training examples times classes for which gradient boosting is fitted."""
MIN_PROBABILITY = 1e-15
"""Lower bound of probabilities before the logarithm is taken."""
ensemble = LazyModule("sklearn.ensemble")
model_selection = LazyModule("sklearn.model_selection")


def simple_baselines(features: SimpleFeatures, data: LabeledData, recipe: Recipe) -> dict[str, Probe]:
    """Fit a logistic regression (ridge regression for regression targets) on simple features of the training examples.

    Dense features are standardized. The regularization strength, and the kind of features if there are several, are
    chosen by cross-validation. If the features ask for it and an example has one label, gradient boosting is fitted
    too; cross-validation chooses its size.

    Args:
        features: Simple features of the modality.
        data: Data with a test split; cross-validation keeps a group in one fold.
        recipe: Recipe with ``data`` and the seed of the folds.

    Returns:
        Predictions on the test examples by name of the baseline.

    Raises:
        CacheUnavailableError: If the fit would take too long.
    """
    assert data.test is not None
    by_kind = features.compute(data.train, data.test, recipe.data)
    if not by_kind:
        raise CacheUnavailableError("the training examples have no such features")
    standardized = {kind: _standardized(train, test) for kind, (train, test) in by_kind.items()}
    target, classes = data.target, len(data.label_names)
    train_features = {kind: train for kind, (train, _) in standardized.items()}
    check_work(train_features, classes)
    labels = labels_of(data.train, target, classes)
    folds = assign_folds(data.train["label"][:], target, 1, recipe.seed, groups=data.train_groups)
    best, fit, _ = fit_best(train_features, labels, target, classes, folds)
    scores = probabilities(fit(standardized[best][1]), target)
    fitted = {features.name: Probe(scores, fit_metadata(fit, target))}
    if features.boosting and TARGETS[target].linear_solver and not TARGETS[target].has_several_classes:
        reason = _no_boosting(labels, folds, classes)
        if reason:
            logger.info("No gradient boosting of %s: %s.", features.title, reason)
        else:
            fitted[features.boosting_name] = _boost(*by_kind[best], labels, folds, classes, recipe.seed)
    return fitted


def _no_boosting(labels: np.ndarray, folds: np.ndarray, classes: int) -> str:
    """Return the reason why gradient boosting is not fitted; empty if it is."""
    if len(labels) * classes > MAX_BOOSTING_CELLS:
        return f"{len(labels):,} examples x {classes:,} classes take too long to fit"
    if classes > 1 and any(len(np.unique(labels[folds != fold])) < 2 for fold in np.unique(folds)):
        return "a fold of the cross-validation has only one class"
    return ""


def _standardized(train: Features, test: Features) -> tuple[Features, Features]:
    """Return dense features with the mean and standard deviation of the training split removed, sparse as they are."""
    if issparse(train):
        return train, test
    center, spread = train.mean(axis=0), train.std(axis=0)
    spread = np.where(spread > 0, spread, 1.0)
    return ((train - center) / spread).astype(np.float32), ((test - center) / spread).astype(np.float32)


def _boost(
    train: np.ndarray, test: np.ndarray, labels: np.ndarray, folds: np.ndarray, classes: int, seed: int
) -> Probe:
    """Fit gradient boosting of decision trees.

    Args:
        train: Features of the training examples [examples, features].
        test: Features of the test examples.
        labels: Class indices, or numbers of a regression, of the training examples.
        folds: Fold of each training example.
        classes: Number of classes; 1 for regression.
        seed: Seed of the trees.
    """
    is_class = np.issubdtype(labels.dtype, np.integer)
    kind = ensemble.HistGradientBoostingClassifier if is_class else ensemble.HistGradientBoostingRegressor
    search = model_selection.GridSearchCV(
        kind(random_state=seed, early_stopping=False),
        _TREES,
        scoring=partial(_mean_log_probability, classes) if is_class else "neg_mean_squared_error",
        cv=model_selection.PredefinedSplit(folds),
        refit=_smallest_good,
    )
    search.fit(train, labels)
    if not is_class:
        return Probe(search.predict(test), _about(search.best_params_))
    return Probe(_all_probabilities(search, test, classes), _about(search.best_params_))


def _all_probabilities(model: Any, features: np.ndarray, classes: int) -> np.ndarray:
    """Return the probabilities [examples, classes]; 0 for a class without training examples."""
    scores = np.zeros((len(features), classes))
    scores[:, model.classes_] = model.predict_proba(features)
    return scores


def _mean_log_probability(classes: int, model: Any, features: np.ndarray, labels: np.ndarray) -> float:
    """Return the mean log-probability of the labels, also of classes that only the held-out fold has."""
    scores = _all_probabilities(model, features, classes)[np.arange(len(labels)), labels]
    return float(np.log(np.maximum(scores, MIN_PROBABILITY)).mean())


def _smallest_good(results: Mapping[str, Any]) -> int:
    """Return the first setting whose score is within one standard error of the best one.

    Source: Breiman et al. 1984, the one-standard-error rule.
    """
    means = np.asarray(results["mean_test_score"])
    best = int(np.argmax(means))
    folds = sum(name.startswith("split") and name.endswith("_test_score") for name in results)
    error = results["std_test_score"][best] / np.sqrt(folds)
    return int(np.flatnonzero(means >= means[best] - error)[0])


def _about(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {"method": "gradient_boosting", **settings}
