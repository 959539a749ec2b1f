"""Baseline without a checkpoint: a linear model of simple features of the examples, such as statistics of a sound."""

import numpy as np
from scipy.sparse import issparse

from hf_finetune.data.prepare import LabeledData
from hf_finetune.evaluation.linear_probe import Probe, check_work
from hf_finetune.evaluation.metrics import labels_of, probabilities
from hf_finetune.recipe.schema import Recipe
from hf_finetune.tasks.examples import SimpleFeatures
from hf_finetune.training.linear_fit import Features, fit_best, fit_metadata
from hf_finetune.training.linear_folds import assign_folds

__all__ = ["simple_baseline"]


def simple_baseline(features: SimpleFeatures, data: LabeledData, recipe: Recipe) -> Probe:
    """Fit a logistic regression (ridge regression for regression targets) on simple features of the training examples.

    Dense features are standardized. The regularization strength, and the kind of features if there are several, are
    chosen by cross-validation.

    Args:
        features: Simple features of the modality.
        data: Data with a test split; cross-validation keeps a group in one fold.
        recipe: Recipe with ``data`` and the seed of the folds.

    Returns:
        Predictions on the test examples.

    Raises:
        CacheUnavailableError: If the fit would take too long.
    """
    assert data.test is not None
    by_kind = {
        name: _standardized(train, test)
        for name, (train, test) in features.compute(data.train, data.test, recipe.data).items()
    }
    target, classes = data.target, len(data.label_names)
    train_features = {name: train for name, (train, _) in by_kind.items()}
    check_work(train_features, classes)
    folds = assign_folds(data.train["label"][:], target, 1, recipe.seed, groups=data.train_groups)
    kind, fit, _ = fit_best(train_features, labels_of(data.train, target, classes), target, classes, folds)
    return Probe(probabilities(fit(by_kind[kind][1]), target), fit_metadata(fit, target))


def _standardized(train: Features, test: Features) -> tuple[Features, Features]:
    """Return dense features with the mean and standard deviation of the training split removed, sparse as they are."""
    if issparse(train):
        return train, test
    center, spread = train.mean(axis=0), train.std(axis=0)
    spread = np.where(spread > 0, spread, 1.0)
    return ((train - center) / spread).astype(np.float32), ((test - center) / spread).astype(np.float32)
