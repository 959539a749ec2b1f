"""Metrics of predicted sets, and of the order of the classes of each example."""

import numpy as np
import pytest
from sklearn.metrics import jaccard_score, ndcg_score

from hf_finetune.evaluation.intervals import intervals
from hf_finetune.evaluation.metrics import compute_metrics
from hf_finetune.targets.scored_examples import ScoredExamples
from hf_finetune.targets.set_metrics import metric_at_k

LABELS = np.array([[1, 0, 1, 0], [0, 1, 0, 0], [0, 0, 0, 0]])
SCORES = np.array([[0.9, 0.8, 0.7, 0.1], [0.2, 0.1, 0.4, 0.3], [0.6, 0.5, 0.1, 0.1]])


def examples(labels=LABELS, scores=SCORES):
    return ScoredExamples(labels, scores, "multi_label")


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("precision_at_2", [1 / 2, 0, 0]),
        ("recall_at_2", [1 / 2, 0, 0]),
        ("recall_at_3", [1, 0, 0]),
        ("ndcg_at_1", [1, 0, 0]),
        ("ndcg_at_3", [(1 + 1 / 2) / (1 + 1 / np.log2(3)), 0, 0]),
    ],
)
def test_values_computed_by_hand(name, values):
    assert metric_at_k(name).per_example(examples()) == pytest.approx(values)
    assert compute_metrics([name], examples())[name] == pytest.approx(np.mean(values))


def test_the_order_is_that_of_scikit_learn():
    rng = np.random.default_rng(0)
    labels, scores = (rng.random((50, 12)) < 0.3).astype(int), rng.random((50, 12))
    labels[labels.sum(axis=1) == 0, 0] = 1
    expected = ndcg_score(labels, scores, k=5)
    assert compute_metrics(["ndcg_at_5"], examples(labels, scores))["ndcg_at_5"] == pytest.approx(expected)
    decisions = (scores >= 0.5).astype(int)
    expected = jaccard_score(labels, decisions, average="samples", zero_division=1)
    assert compute_metrics(["jaccard"], examples(labels, scores))["jaccard"] == pytest.approx(expected)


def test_empty_sets_agree():
    assert compute_metrics(["jaccard"], examples(LABELS[2:], SCORES[2:] / 2))["jaccard"] == 1.0


def test_unknown_labels_are_left_out_of_the_order():
    labels = LABELS.astype(float)
    labels[0, 1] = np.nan
    assert metric_at_k("recall_at_2").per_example(examples(labels))[0] == 1.0
    assert metric_at_k("precision_at_2").per_example(examples(labels))[0] == 1.0


def test_intervals_are_those_of_a_mean():
    low, high = intervals(
        ["recall_at_2"], examples(np.tile(LABELS, (40, 1)), np.tile(SCORES, (40, 1))), seed=0
    )["recall_at_2"]
    assert low < 1 / 6 < high


@pytest.mark.parametrize("name", ["recall_at_0", "recall_at_", "f1_at_3", "recall", "ndcg_at_2x"])
def test_other_names_are_none(name):
    assert metric_at_k(name) is None
