"""Bootstrap intervals: seeded, around the metric, and as often around the truth as they say."""

import numpy as np
import pytest
from scipy.stats import binomtest

from hf_finetune.evaluation.intervals import bootstrap_difference, intervals
from hf_finetune.evaluation.metrics import compute_metrics, probabilities
from hf_finetune.evaluation.resampling import statistic

CLASSES = 4


def drawn(chance, examples, strength=1.5):
    """Draw labels, and scores that are right about three times of four."""
    labels = chance.integers(0, CLASSES, examples)
    logits = chance.normal(size=(examples, CLASSES)) + strength * np.eye(CLASSES)[labels]
    return labels, probabilities(logits, "single_label")


def test_an_interval_holds_the_metric_and_is_the_same_again():
    labels, scores = drawn(np.random.default_rng(0), 80)
    names = ["accuracy", "f1_macro", "log_loss", "roc_auc"]
    once, again, other = (intervals(names, "single_label", scores, labels, seed=seed) for seed in (0, 0, 1))
    values = compute_metrics(names, "single_label", scores, labels)
    assert all(once[name][0] < values[name] < once[name][1] for name in names)
    assert once == again != other


def test_more_examples_make_it_narrower():
    widths = []
    for examples in (50, 5000):
        labels, scores = drawn(np.random.default_rng(0), examples)
        low, high = intervals(["accuracy"], "single_label", scores, labels, seed=0)["accuracy"]
        widths.append(high - low)
    assert widths[1] < widths[0] / 5


@pytest.mark.parametrize("right", [True, False])
def test_where_all_examples_are_alike_the_binomial_law_tells(right):
    labels = np.arange(20) % 2
    scores = np.eye(2)[labels if right else 1 - labels]
    exact = binomtest(20 if right else 0, 20).proportion_ci(0.95, "exact")
    found = intervals(["accuracy"], "single_label", scores, labels, seed=0)["accuracy"]
    assert found == pytest.approx((exact.low, exact.high))
    assert found[1] - found[0] > 0.1


def test_a_single_example_and_what_is_undefined_have_none():
    labels, scores = drawn(np.random.default_rng(0), 1)
    assert intervals(["log_loss"], "single_label", scores, labels, seed=0) == {"log_loss": None}
    amounts = np.ones(5)
    assert intervals(["spearman"], "regression", np.arange(5.0), amounts, seed=0) == {"spearman": None}


@pytest.mark.parametrize("name", ["accuracy", "f1_macro"])
def test_intervals_cover_the_truth_as_often_as_they_say(name):
    truth_labels, truth_scores = drawn(np.random.default_rng(1), 200_000)
    truth = compute_metrics([name], "single_label", truth_scores, truth_labels)[name]
    held, trials = 0, 500
    for seed in range(trials):
        labels, scores = drawn(np.random.default_rng(seed + 2), 150)
        low, high = intervals([name], "single_label", scores, labels, seed=seed)[name]
        held += low <= truth <= high
    assert 0.93 <= held / trials <= 0.97


def test_a_difference_is_told_from_none():
    chance = np.random.default_rng(0)
    labels, scores = drawn(chance, 300)
    worse = probabilities(np.log(scores) + 2.0 * chance.normal(size=scores.shape), "single_label")
    one, two, same = (
        statistic("accuracy", "single_label", labels, each) for each in (worse, scores, worse.copy())
    )
    (low, high), p_value = bootstrap_difference(one, two, 300, fast=True, seed=0)
    assert 0 < low < high and p_value < 0.01
    (low, high), p_value = bootstrap_difference(one, same, 300, fast=True, seed=0)
    assert low == high == 0 and p_value == 1.0
