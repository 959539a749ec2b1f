"""Metrics of many resamples at once equal those of scikit-learn, resample by resample."""

import numpy as np
import pytest

from hf_finetune.evaluation.intervals import statistic
from hf_finetune.evaluation.metrics import (
    all_metrics,
    compute_metrics,
    defined_metrics,
    metric_for,
    probabilities,
)
from hf_finetune.evaluation.registry import find_metric
from hf_finetune.targets.decision_rule import DEFAULT_RULE, DecisionRule
from hf_finetune.targets.metric import MetricSettings
from hf_finetune.targets.scored_examples import ScoredExamples

EXAMPLES = 23


def synthetic_examples(target, classes, rule=DEFAULT_RULE):
    """Return examples whose scores are right more often than not."""
    return ScoredExamples(*drawn(target, classes), target, rule, settings=settings_of(classes))


def drawn(target, classes, seed=0):
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


def settings_of(classes):
    return MetricSettings(
        tuple(f"class {index}" for index in range(classes)), {"class 0": {"class 1": 5, "default": 2}}
    )


def counts_of(resamples, seed=1):
    indices = np.random.default_rng(seed).integers(0, EXAMPLES, (resamples, EXAMPLES))
    return indices, np.stack([np.bincount(row, minlength=EXAMPLES) for row in indices]).astype(float)


OF_A_CLASS = ("recall:class 0", "precision:class 1", "f1:class 2", "top_2_accuracy", "top_3_accuracy")
COSTS = ("expected_cost", "expected_cost_bayes")
CASES = [
    (target, classes, name)
    for target, classes, others in (
        ("single_label", 3, (*OF_A_CLASS[:4], *COSTS)),
        ("single_label", 9, (*OF_A_CLASS, *COSTS)),
        ("multi_label", 4, OF_A_CLASS[:3]),
        ("multi_label", 1, OF_A_CLASS[:1]),
        ("regression", 1, ()),
    )
    for name in (*defined_metrics(target), *others)
]


@pytest.mark.parametrize(("target", "classes", "name"), CASES)
def test_each_resample_has_the_metric_of_its_examples(target, classes, name):
    examples = synthetic_examples(target, classes)
    indices, counts = counts_of(8)
    found = statistic(metric_for(name, examples), examples)(counts)
    alone = [compute_metrics([name], examples[row])[name] for row in indices]
    np.testing.assert_allclose(found, alone, rtol=1e-9, atol=1e-12)


def test_resamples_may_have_any_number_of_examples():
    examples = synthetic_examples("single_label", 3)
    counts = counts_of(12)[1] * np.random.default_rng(0).integers(0, 3, EXAMPLES)
    for name in ("accuracy", "f1_macro", "cohen_kappa_linear", "roc_auc"):
        found = statistic(metric_for(name, examples), examples)(counts)
        rows = [np.repeat(np.arange(EXAMPLES), row.astype(int)) for row in counts]
        alone = [compute_metrics([name], examples[row])[name] for row in rows]
        np.testing.assert_allclose(found, alone)


def test_thresholds_count_as_in_the_metrics():
    examples = synthetic_examples("multi_label", 4, rule=DecisionRule((0.2, 0.4, 0.6, 0.8)))
    indices, counts = counts_of(5)
    for name in ("f1_macro", "exact_match", "roc_auc", "recall:class 3"):
        found = statistic(metric_for(name, examples), examples)(counts)
        alone = [compute_metrics([name], examples[row])[name] for row in indices]
        np.testing.assert_allclose(found, alone)


def test_metrics_that_are_means_have_a_value_for_each_example():
    examples = synthetic_examples("single_label", 3)
    for name in ("accuracy", "top_2_accuracy", "log_loss", "expected_cost"):
        values = metric_for(name, examples).per_example(examples)
        whole = compute_metrics([name], examples)[name]
        assert values.shape == (EXAMPLES,) and values.mean() == pytest.approx(whole)
    assert metric_for("f1_macro", examples).per_example is None
    assert metric_for("rmse", synthetic_examples("regression", 1)).per_example is None


def test_common_metrics_are_vectorized():
    slow = {"roc_auc", "mean_average_precision", "r2", "spearman"}
    names = {name for target in ("single_label", "multi_label", "regression") for name in all_metrics(target)}
    settings = settings_of(3)
    assert {name for name in names if not find_metric(name).is_fast} == slow
    assert all(find_metric(name, settings).is_fast for name in (*OF_A_CLASS, *COSTS, "cohen_kappa_quadratic"))
    fractions = {"accuracy", "exact_match", "top5_accuracy"}
    assert {name for name in names if find_metric(name).is_fraction} == fractions
    assert find_metric("top_3_accuracy").is_fraction
    assert not find_metric("recall:class 0", settings).is_fraction
