"""Metrics of groups and of weights, registered for a label type, are computed everywhere without other changes."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from datasets import Dataset, Features, Value
from evaluation_helpers import save_bert

from hf_finetune.evaluation.classifier import load_classifier
from hf_finetune.evaluation.compare import compare_runs, paired_difference
from hf_finetune.evaluation.evaluate import evaluate_model
from hf_finetune.evaluation.intervals import intervals
from hf_finetune.evaluation.metrics import compute_metrics
from hf_finetune.evaluation.predictions import Predictions, write_predictions
from hf_finetune.evaluation.selection_metrics import undefined_metric
from hf_finetune.targets import TARGETS
from hf_finetune.targets.metric import Metric
from hf_finetune.targets.scored_examples import ScoredExamples, group_indices

RNG = np.random.default_rng(0)
GROUPS = 25
QUERIES = [f"query {number}" for number in np.repeat(np.arange(GROUPS), RNG.integers(2, 5, GROUPS))]
EXAMPLES = ScoredExamples(
    RNG.integers(0, 2, len(QUERIES)).astype(float),
    RNG.normal(size=len(QUERIES)),
    "regression",
    groups=group_indices(QUERIES),
)
BETTER = replace(EXAMPLES, scores=EXAMPLES.scores + EXAMPLES.labels)


def hits(examples):
    """Return the label of the example with the highest score of each group, and the indices of these examples."""
    members = [np.flatnonzero(examples.groups == group) for group in np.unique(examples.groups)]
    best = [rows[examples.scores[rows].argmax()] for rows in members]
    return examples.labels[best], best


def weights_of(examples):
    return np.ones(len(examples)) if examples.weights is None else examples.weights


def hit_at_1(examples):
    return hits(examples)[0].mean()


def weighted_hit_at_1(examples):
    labels, best = hits(examples)
    return np.average(labels, weights=weights_of(examples)[best])


def error(examples):
    return np.abs(examples.labels - examples.scores).mean()


def weighted_error(examples):
    return np.average(np.abs(examples.labels - examples.scores), weights=weights_of(examples))


@pytest.fixture(autouse=True)
def received(monkeypatch):
    """Register the metrics, and return the inputs of two further ones."""
    received = {"repeated": [], "weighted": []}

    def spy(name):
        return lambda examples: received[name].append(examples) or len(received[name])

    own = (
        Metric("hit_at_1", hit_at_1),
        Metric("weighted_hit_at_1", weighted_hit_at_1, takes_weights=True),
        Metric("error", error),
        Metric("weighted_error", weighted_error, takes_weights=True),
        Metric("repeated", spy("repeated"), on_request=True),
        Metric("weighted", spy("weighted"), on_request=True, takes_weights=True),
    )
    monkeypatch.setattr(TARGETS["regression"], "metrics", (*TARGETS["regression"].metrics, *own))
    return received


NAMES = ["hit_at_1", "weighted_hit_at_1", "error", "weighted_error"]


def test_an_evaluation_computes_them_with_the_groups_of_the_data(tmp_path):
    texts = ["good film", "bad plot", "boring", "great", "not great"]
    columns = {
        "id": list("abcde"),
        "text": texts,
        "label": [1.0, 0.0, 0.0, 1.0, 0.0],
        "group:query": list("xxyyy"),
    }
    kinds = {name: Value("float32" if name == "label" else "string") for name in columns}
    classifier = load_classifier(save_bert(tmp_path / "model", ("label",), "regression"))
    found = evaluate_model(classifier, Dataset.from_dict(columns, Features(kinds)))
    expected = [found.labels[rows][found.scores[rows].argmax()] for rows in (slice(0, 2), slice(2, 5))]
    assert found.metrics["hit_at_1"] == found.metrics["weighted_hit_at_1"] == np.mean(expected)
    assert found.metrics["error"] == pytest.approx(found.metrics["mae"])
    assert found.examples.groups.tolist() == [0, 0, 1, 1, 1]


def test_weights_and_repeated_examples_have_the_same_intervals():
    found = intervals(NAMES, EXAMPLES, seed=0)
    assert found["weighted_hit_at_1"] == pytest.approx(found["hit_at_1"])
    assert found["weighted_error"] == pytest.approx(found["error"])
    values = compute_metrics(NAMES, EXAMPLES)
    assert all(found[name][0] < values[name] < found[name][1] for name in NAMES)


def test_complete_groups_are_drawn_and_each_copy_is_a_group(received):
    intervals(["repeated", "weighted"], EXAMPLES, seed=0)
    assert len(received["repeated"]) == len(received["weighted"]) > 200
    sizes = np.bincount(EXAMPLES.groups)
    for repeated, weighted in zip(received["repeated"], received["weighted"], strict=True):
        times = np.array([weighted.weights[weighted.groups == group][0] for group in range(GROUPS)])
        assert times.sum() == GROUPS and np.array_equal(weighted.weights, times[weighted.groups])
        assert repeated.weights is None and len(repeated) == weighted.weights.sum()
        copies = np.unique(repeated.groups, return_counts=True)[1]
        assert copies.tolist() == np.repeat(sizes, times.astype(int)).tolist()
    alone = replace(EXAMPLES, groups=None)
    received["weighted"].clear()
    intervals(["weighted"], alone, seed=0)
    assert all(examples.groups is None for examples in received["weighted"])
    assert any(len(set(examples.weights[:2])) == 2 for examples in received["weighted"])


def test_a_paired_comparison_draws_the_same_groups_for_both_models(received):
    before, after = (compute_metrics(["hit_at_1"], each)["hit_at_1"] for each in (EXAMPLES, BETTER))
    plain, weighted = (paired_difference(name, EXAMPLES, BETTER, seed=0) for name in NAMES[:2])
    assert (plain.first, plain.value) == (before, after) == (weighted.first, weighted.value)
    assert plain.interval == pytest.approx(weighted.interval) and plain.interval[0] < after - before
    paired_difference("weighted", EXAMPLES, BETTER, seed=0)
    first, other = (
        [
            examples.weights
            for examples in received["weighted"]
            if np.array_equal(examples.scores, model.scores)
        ]
        for model in (EXAMPLES, BETTER)
    )
    assert len(first) > 200 and np.array_equal(first, other)


def test_runs_are_compared_by_them(tmp_path):
    ids = [str(row) for row in range(len(QUERIES))]
    for name, examples in (("first", EXAMPLES), ("other", BETTER)):
        write_predictions(
            tmp_path / name,
            Predictions(
                ids,
                examples.labels,
                examples.scores,
                "regression",
                ("label",),
                groups=QUERIES,
                group_column="query",
            ),
        )
    (found,) = compare_runs([tmp_path / "first", tmp_path / "other"], NAMES)
    expected = [paired_difference(name, EXAMPLES, BETTER, seed=0) for name in NAMES]
    assert found.differences == tuple(expected) and found.groups == 25


def test_a_metric_that_selects_is_tried_with_the_groups_of_the_validation_split():
    split = Dataset.from_dict({"label": [0.0, 1.0, 1.0], "group:query": ["a", "a", "b"]})
    data = SimpleNamespace(validation=split, target="regression", label_names=("label",))
    assert undefined_metric("hit_at_1", data, "metrics[0]") is None
