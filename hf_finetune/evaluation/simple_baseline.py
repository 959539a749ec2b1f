"""Baseline without a checkpoint: a linear model of simple features of the examples, such as statistics of a sound."""

import numpy as np

from hf_finetune.data.prepare import LabeledData
from hf_finetune.evaluation.linear_probe import Probe, check_work
from hf_finetune.evaluation.metrics import labels_of, probabilities
from hf_finetune.recipe.schema import Recipe
from hf_finetune.tasks.examples import SimpleFeatures
from hf_finetune.training.linear_fit import assign_folds, fit_best, fit_metadata

__all__ = ["simple_baseline"]


def simple_baseline(features: SimpleFeatures, data: LabeledData, recipe: Recipe) -> Probe:
    """Fit a logistic regression (ridge regression for regression targets) on simple features of the training examples.

    The features are standardized, and the regularization strength is chosen by cross-validation.

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
    train, test = features.compute(data.train, data.test, recipe.data)
    center, spread = train.mean(axis=0), train.std(axis=0)
    spread = np.where(spread > 0, spread, 1.0)
    train, test = (train - center) / spread, (test - center) / spread
    target, classes = data.target, len(data.label_names)
    by_name = {features.name: train.astype(np.float32)}
    check_work(by_name, classes)
    folds = assign_folds(data.train["label"][:], target, 1, recipe.seed, groups=data.train_groups)
    _, fit, _ = fit_best(by_name, labels_of(data.train, target, classes), target, classes, folds)
    return Probe(probabilities(fit(test.astype(np.float32)), target), fit_metadata(fit, target))
