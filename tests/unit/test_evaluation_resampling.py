"""Metrics of many resamples at once are those of scikit-learn, resample by resample."""

import numpy as np
import pytest

from hf_finetune.evaluation.metrics import all_metrics, compute_metrics, probabilities
from hf_finetune.evaluation.resampling import FRACTIONS, is_fast, statistic

EXAMPLES = 23


def made_up(target, classes, seed=0):
    """Give labels and scores that are right more often than not."""
    chance = np.random.default_rng(seed)
    if target == "regression":
        labels = chance.normal(size=EXAMPLES)
        return labels, labels + chance.normal(size=EXAMPLES)
    if target == "multi_label":
        labels = (chance.random((EXAMPLES, classes)) < 0.3).astype(np.int64)
        return labels, probabilities(2 * labels - 1 + chance.normal(size=labels.shape), target)
    labels = chance.integers(0, classes, EXAMPLES)
    logits = chance.normal(size=(EXAMPLES, classes)) + 1.5 * np.eye(classes)[labels]
    return labels, probabilities(logits, target)


CASES = [
    (target, classes, name)
    for target, classes in (
        ("single_label", 3),
        ("single_label", 9),
        ("multi_label", 4),
        ("multi_label", 1),
        ("regression", 1),
    )
    for name in all_metrics(target)
]


@pytest.mark.parametrize(("target", "classes", "name"), CASES)
def test_each_resample_has_the_metric_of_its_examples(target, classes, name):
    labels, scores = made_up(target, classes)
    indices = np.random.default_rng(1).integers(0, EXAMPLES, (40, EXAMPLES))
    found = statistic(name, target, labels, scores)(indices)
    alone = [compute_metrics([name], target, scores[row], labels[row])[name] for row in indices]
    np.testing.assert_allclose(found, alone, rtol=1e-9, atol=1e-12)


def test_thresholds_count_as_in_the_metrics():
    labels, scores = made_up("multi_label", 4)
    thresholds = (0.2, 0.4, 0.6, 0.8)
    indices = np.random.default_rng(1).integers(0, EXAMPLES, (5, EXAMPLES))
    for name in ("f1_macro", "exact_match", "roc_auc"):
        found = statistic(name, "multi_label", labels, scores, thresholds)(indices)
        alone = [
            compute_metrics([name], "multi_label", scores[row], labels[row], thresholds)[name]
            for row in indices
        ]
        np.testing.assert_allclose(found, alone)


def test_what_is_usually_asked_for_is_computed_at_once():
    assert all(
        is_fast(name) for name in ("accuracy", "f1_macro", "balanced_accuracy", "rmse", "mae", "log_loss")
    )
    assert not any(is_fast(name) for name in ("roc_auc", "r2", "spearman"))
    assert set(FRACTIONS) <= {*all_metrics("single_label"), *all_metrics("multi_label")}
