"""Metrics of the rank of the true class, with ties at their middle rank."""

import numpy as np
import pytest

from hf_finetune.evaluation.intervals import intervals
from hf_finetune.evaluation.metrics import all_metrics, compute_metrics, metric_problem
from hf_finetune.evaluation.predictions import Predictions, read_predictions, write_predictions
from hf_finetune.targets.metric import MetricSettings
from hf_finetune.targets.rank_metrics import label_places, rank_metric_at_k
from hf_finetune.targets.scored_examples import ScoredExamples
from hf_finetune.targets.top_scores import constant_scores, keep_top, pack_top, unpack_top

SCORES = np.array(
    [
        [0.5, 0.2, 0.2, 0.1],  # label 1 shares places 2 and 3
        [0.25, 0.25, 0.25, 0.25],  # label 0 shares places 1 to 4
        [0.1, 0.2, 0.3, 0.4],  # label 3 is first
        [0.4, 0.3, 0.2, 0.1],  # label 3 is last
    ]
)
LABELS = np.array([1, 0, 3, 3])
PLACES = np.array([2.5, 2.5, 1, 4])


def examples(scores=SCORES, labels=LABELS, **options):
    return ScoredExamples(labels, scores, "single_label", **options)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("hit_rate_at_1", [0, 0, 1, 0]),
        ("hit_rate_at_2", [0, 0, 1, 0]),
        ("hit_rate_at_3", [1, 1, 1, 0]),
        ("mrr_at_3", [1 / 2.5, 1 / 2.5, 1, 0]),
        ("ndcg_at_3", [1 / np.log2(3.5), 1 / np.log2(3.5), 1, 0]),
    ],
)
def test_values_computed_by_hand(name, values):
    assert rank_metric_at_k(name).per_example(examples()) == pytest.approx(values)
    assert compute_metrics([name], examples())[name] == pytest.approx(np.mean(values))


def test_the_reciprocal_rank_has_no_cut():
    assert label_places(examples()).tolist() == PLACES.tolist()
    assert compute_metrics(["mrr"], examples())["mrr"] == pytest.approx((1 / PLACES).mean())
    assert "mrr" not in all_metrics("single_label")


def test_equal_scores_for_everything_gain_nothing():
    classes = 100
    flat = examples(np.full((50, classes), 1 / classes), np.arange(50))
    assert compute_metrics(["hit_rate_at_10", "top_10_accuracy"], flat)["hit_rate_at_10"] == 0.0
    assert (label_places(flat) == 50.5).all()


def test_weights_count_an_example_several_times():
    weights = np.array([0, 2, 1, 1])
    names = ["hit_rate_at_3", "ndcg_at_3", "mrr"]
    weighted = compute_metrics(names, examples(weights=weights))
    rows = np.repeat(np.arange(4), weights)
    assert weighted == pytest.approx(compute_metrics(names, examples(SCORES[rows], LABELS[rows])))


def test_intervals_resample_groups_as_a_whole():
    groups = np.repeat(np.arange(10), 4)
    many = examples(np.tile(SCORES, (10, 1)), np.tile(LABELS, 10))
    low, high = intervals(["hit_rate_at_3"], many, seed=0)["hit_rate_at_3"]
    assert low < 0.75 < high
    grouped = examples(np.tile(SCORES, (10, 1)), np.tile(LABELS, 10), groups=groups)
    # every group has the same hits, so that no resample differs
    assert intervals(["hit_rate_at_3"], grouped, seed=0)["hit_rate_at_3"] == (0.75, 0.75)


def test_the_highest_scores_keep_the_places_of_the_labels():
    whole = keep_top(SCORES, LABELS, SCORES.argmax(axis=1), top=2)
    for scores in (whole, unpack_top(pack_top(whole), 4), whole[np.arange(4)], whole.reordered([3, 2, 1, 0])):
        assert label_places(examples(scores)).tolist() == PLACES.tolist()
    constant = constant_scores(np.array([0.4, 0.2, 0.2, 0.2]), np.array([0, 2]))
    assert label_places(examples(constant, np.array([0, 2]))).tolist() == [1, 3]


def test_stored_predictions_keep_the_places(tmp_path):
    names = tuple(f"item-{index}" for index in range(300))
    scores = np.full((2, 300), 1 / 300)
    scores[0, 7] *= 1.5
    labels = np.array([7, 8])
    predictions = Predictions(
        ("a", "b"), labels, scores / scores.sum(axis=1, keepdims=True), "single_label", names
    )
    write_predictions(tmp_path / "predictions.parquet", predictions)
    stored = read_predictions(tmp_path / "predictions.parquet").scores
    assert label_places(examples(stored, labels)).tolist() == [1, 150.5]


def test_a_name_must_fit_the_number_of_classes():
    settings = MetricSettings(label_names=("a", "b"))
    problem = metric_problem("hit_rate_at_5", "single_label", "metrics[0]", settings)
    assert str(problem) == (
        "metrics[0] must have a k smaller than the number of classes (2). Got 'hit_rate_at_5'."
    )
    assert metric_problem("hit_rate_at_1", "single_label", "metrics[0]", settings) is None
    assert metric_problem("hit_rate_at_1", "multi_label", "metrics[0]", settings) is not None
