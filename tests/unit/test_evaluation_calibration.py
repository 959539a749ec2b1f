"""Calibration error, reliability curve, temperature and thresholds, against values computed by hand."""

import numpy as np
import pytest
from sklearn.metrics import f1_score

from hf_finetune.evaluation.calibration import calibration_error, fit_temperature, reliability
from hf_finetune.evaluation.metrics import decide, probabilities
from hf_finetune.evaluation.thresholds import fit_thresholds
from hf_finetune.targets.class_metrics import cross_entropy_per_example
from hf_finetune.targets.decision_rule import DecisionRule


def test_a_common_threshold_maximizes_the_micro_averaged_f1():
    rng = np.random.default_rng(0)
    labels = (rng.random((40, 3)) < (0.1, 0.3, 0.6)).astype(int)
    scores = np.clip(0.4 * labels + rng.normal(0.3, 0.2, labels.shape), 0, 1)
    common = fit_thresholds(scores, labels, common=True)
    assert len(set(common)) == 1

    def micro(threshold):
        return f1_score(labels, scores >= threshold, average="micro")

    assert micro(common[0]) == max(micro(threshold) for threshold in np.linspace(0, 1, 2001))


def test_the_error_of_two_bins_by_hand():
    # Confidence 0.9 and 2 of 4 right: a gap of 0.4 for four of six; 0.6 and all right: 0.4 for two of six.
    scores = np.array([[0.9, 0.1]] * 4 + [[0.4, 0.6]] * 2)
    labels = np.array([0, 0, 1, 1, 1, 1])
    assert calibration_error(scores, labels, bins=10) == pytest.approx(0.4)
    held = [each for each in reliability(scores, labels, bins=10) if each.count]
    assert [(each.count, each.right) for each in held] == [(2, 1.0), (4, 0.5)]
    assert [each.confidence for each in held] == pytest.approx([0.6, 0.9])


def test_bins_cover_everything_once():
    chance = np.random.default_rng(0)
    scores = probabilities(chance.normal(size=(500, 3)), "single_label")
    scores[0], scores[1] = [1.0, 0.0, 0.0], [1 / 3, 1 / 3, 1 / 3]
    bins = reliability(scores, chance.integers(0, 3, 500))
    assert sum(each.count for each in bins) == 500 and len(bins) == 15
    assert [each.high for each in bins[:-1]] == [each.low for each in bins[1:]]


def test_multi_label_data_counts_the_known_labels_of_each_class():
    scores = np.array([[0.9, 0.2], [0.9, 0.2]])
    labels = np.array([[1, 0], [0, 1]])
    held = [each for each in reliability(scores, labels, bins=10) if each.count]
    assert [(each.count, each.right) for each in held] == [(2, 0.5), (2, 0.5)]
    assert calibration_error(scores, labels, bins=10) == pytest.approx((0.3 + 0.4) / 2)


@pytest.mark.parametrize("target", ["single_label", "multi_label"])
@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_the_temperature_of_the_data_is_recovered(target, temperature):
    chance = np.random.default_rng(0)
    logits = 2 * chance.normal(size=(20_000, 3))
    scores = probabilities(logits, target)
    if target == "single_label":
        labels = (scores.cumsum(axis=1) < chance.random((len(scores), 1))).sum(axis=1)
    else:
        labels = (chance.random(scores.shape) < scores).astype(np.int64)
    assert fit_temperature(logits * temperature, labels, target) == pytest.approx(temperature, rel=0.05)
    assert calibration_error(scores, labels) < 0.02


@pytest.mark.parametrize(("wrong", "expected"), [(0, 0.13), (1, 20.0)])
def test_the_temperature_of_answers_that_are_all_right_or_all_wrong(wrong, expected):
    labels = np.arange(40) % 4
    logits = 5.0 * np.eye(4)[(labels + wrong) % 4]
    assert fit_temperature(logits, labels, "single_label") == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize("target", ["single_label", "multi_label"])
def test_the_temperature_of_many_classes_is_the_best_one(target):
    chance = np.random.default_rng(0)
    logits = 3 * chance.normal(size=(300, 900))  # more than one chunk
    if target == "single_label":
        labels = np.where(chance.random(300) < 0.5, logits.argmax(axis=1), chance.integers(0, 900, 300))
    else:
        labels = np.where(
            chance.random(logits.shape) < 0.1, np.nan, logits > chance.normal(size=logits.shape)
        )

    def loss(temperature):
        return cross_entropy_per_example(labels, probabilities(logits / temperature, target)).mean()

    found = fit_temperature(logits, labels, target)
    assert loss(found) < min(loss(0.99 * found), loss(1.01 * found))


def test_each_class_gets_the_threshold_of_the_best_f1():
    scores = np.array([[0.9, 0.5], [0.4, 0.4], [0.3, 0.3], [0.1, 0.2]])
    labels = np.array([[1, 1], [1, 1], [0, 0], [0, 0]])
    thresholds = fit_thresholds(scores, labels)
    assert thresholds == pytest.approx([0.35, 0.35])
    assert (decide(scores, "multi_label", DecisionRule(tuple(thresholds))) == labels).all()


def test_equal_scores_are_on_one_side():
    scores = np.array([[0.7], [0.7], [0.2]])
    assert fit_thresholds(scores, np.array([[1], [0], [0]])) == pytest.approx([0.45])


@pytest.mark.parametrize("member", [0, 1])
def test_a_class_of_all_or_no_examples_keeps_the_threshold_of_a_half(member):
    assert fit_thresholds(np.array([[0.9], [0.1]]), np.array([[member], [member]])) == pytest.approx([0.5])
