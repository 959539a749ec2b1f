"""Bootstrap intervals: seeded, around the metric, and with the declared coverage."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binom, binomtest

from hf_finetune.evaluation.intervals import bootstrap_difference, intervals, statistic
from hf_finetune.evaluation.metrics import compute_metrics, metric_for, probabilities
from hf_finetune.targets.scored_examples import ScoredExamples, group_indices

CLASSES = 4


def drawn(chance, examples, strength=1.5):
    """Return examples with correct scores three times of four."""
    labels = chance.integers(0, CLASSES, examples)
    logits = chance.normal(size=(examples, CLASSES)) + strength * np.eye(CLASSES)[labels]
    return scored(labels, probabilities(logits, "single_label"))


def scored(labels, scores, groups=None, target="single_label"):
    return ScoredExamples(labels, scores, target, groups=group_indices(groups))


def test_an_interval_holds_the_metric_and_is_the_same_again(monkeypatch):
    monkeypatch.setattr("hf_finetune.evaluation.intervals.SLOW_RESAMPLES", 50)
    examples = drawn(np.random.default_rng(0), 60)
    names = ["accuracy", "f1_macro", "log_loss", "roc_auc"]
    once, again = (intervals(names, examples, seed=0) for _ in range(2))
    other = intervals(names[:-1], examples, seed=1)
    values = compute_metrics(names, examples)
    assert all(once[name][0] < values[name] < once[name][1] for name in names)
    assert once == again
    assert {name: once[name] for name in other} != other


def test_more_examples_make_it_narrower():
    widths = []
    for examples in (50, 5000):
        low, high = intervals(["accuracy"], drawn(np.random.default_rng(0), examples), seed=0)["accuracy"]
        widths.append(high - low)
    assert widths[1] < widths[0] / 5


@pytest.mark.parametrize("right", [True, False])
def test_if_all_or_no_examples_are_right_the_interval_is_binomial(right):
    labels = np.arange(20) % 2
    scores = np.eye(2)[labels if right else 1 - labels]
    exact = binomtest(20 if right else 0, 20).proportion_ci(0.95, "exact")
    found = intervals(["accuracy"], scored(labels, scores), seed=0)["accuracy"]
    assert found == pytest.approx((exact.low, exact.high))
    assert found[1] - found[0] > 0.1


def test_a_single_example_and_undefined_metrics_have_no_interval():
    assert intervals(["log_loss"], drawn(np.random.default_rng(0), 1), seed=0) == {"log_loss": None}
    amounts = scored(np.ones(5), np.arange(5.0), target="regression")
    assert intervals(["spearman"], amounts, seed=0) == {"spearman": None}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["accuracy", "f1_macro"])
def test_intervals_have_the_declared_coverage(name):
    truth = compute_metrics([name], drawn(np.random.default_rng(1), 200_000))[name]
    held, trials = 0, 500
    for seed in range(trials):
        low, high = intervals([name], drawn(np.random.default_rng(seed + 2), 150), seed=seed)[name]
        held += low <= truth <= high
    assert 0.93 <= held / trials <= 0.97


GROUPS, MEMBERS = 40, 5


def drawn_in_groups(chance, groups=GROUPS):
    """Return examples in groups: the examples of a group share class and difficulty."""
    rows = np.repeat(np.arange(groups), MEMBERS)
    labels = chance.integers(0, CLASSES, groups)[rows]
    strength = 1.5 + chance.normal(0, 1.5, groups)[rows]
    logits = chance.normal(size=(len(rows), CLASSES)) + strength[:, None] * np.eye(CLASSES)[labels]
    return scored(labels, probabilities(logits, "single_label"), [f"group {row}" for row in rows])


@pytest.mark.slow
def test_intervals_of_grouped_examples_are_wider_and_cover_the_truth():
    """Coverage within the precision of 200 trials; intervals that ignore the groups cover less."""
    truth = compute_metrics(["accuracy"], drawn_in_groups(np.random.default_rng(10_000), 20_000))["accuracy"]
    trials, held, ignored = 200, 0, 0
    for seed in range(trials):
        examples = drawn_in_groups(np.random.default_rng(seed))
        of_groups, of_examples = (
            intervals(["accuracy"], each, seed=seed)["accuracy"]
            for each in (examples, replace(examples, groups=None))
        )
        assert of_groups[1] - of_groups[0] > of_examples[1] - of_examples[0]
        held += of_groups[0] <= truth <= of_groups[1]
        ignored += of_examples[0] <= truth <= of_examples[1]
    low, high = binom.interval(0.99, trials, 0.95)
    assert low <= held <= high and ignored < low


def test_groups_of_one_are_no_groups_and_one_group_has_no_interval():
    examples = drawn(np.random.default_rng(0), 60)
    names = ["accuracy", "f1_macro"]
    order = group_indices([f"{row:03d}" for row in range(60)])
    assert intervals(names, replace(examples, groups=order), seed=0) == intervals(names, examples, seed=0)
    same = replace(examples, groups=group_indices(["same"] * 60))
    assert intervals(names, same, seed=0) == dict.fromkeys(names)


def test_where_all_are_right_the_binomial_law_counts_groups():
    labels = np.arange(20) % 2
    groups = [str(row // 5) for row in range(20)]
    found = intervals(["accuracy"], scored(labels, np.eye(2)[labels], groups), seed=0)
    exact = binomtest(4, 4).proportion_ci(0.95, "exact")
    assert found["accuracy"] == pytest.approx((exact.low, exact.high))


def test_groups_of_unequal_size_are_drawn_whole():
    """One large group contains all errors, so the metric depends on whether it is drawn."""
    labels = np.zeros(40, dtype=np.int64)
    scores = np.eye(2)[np.array([0] * 20 + [1] * 20)]
    groups = [str(row) for row in range(20)] + ["large"] * 20
    low, high = intervals(["accuracy"], scored(labels, scores, groups), seed=0)["accuracy"]
    assert low < 0.35 and high == 1.0


def test_a_difference_is_distinguished_from_none():
    chance = np.random.default_rng(0)
    examples = drawn(chance, 300)
    scores = examples.scores
    worse = probabilities(np.log(scores) + 2.0 * chance.normal(size=scores.shape), "single_label")
    metric = metric_for("accuracy", examples)
    one, two, same = (
        statistic(metric, replace(examples, scores=each)) for each in (worse, scores, worse.copy())
    )
    (low, high), p_value = bootstrap_difference(one, two, np.arange(300), fast=True, seed=0)
    assert 0 < low < high and p_value < 0.01
    (low, high), p_value = bootstrap_difference(one, same, np.arange(300), fast=True, seed=0)
    assert low == high == 0 and p_value == 1.0
