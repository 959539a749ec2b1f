"""Label types: scores, decisions, label arrays and losses match, and no other type is accepted."""

import numpy as np
import pytest
import torch
from torch.nn import functional
from transformers import BertConfig

from hf_finetune.targets import TARGETS, Target
from hf_finetune.targets.decision_rule import DecisionRule
from hf_finetune.targets.losses import label_weights, loss_for
from hf_finetune.targets.model_config import TARGET_ATTRIBUTE, get_target, set_target
from hf_finetune.targets.reading import summarize_labels
from hf_finetune.targets.regression import Regression

LOGITS = np.array([[2.0, -1.0, 0.5], [-0.5, 0.25, 3.0]])
EXAMPLES = {
    "single_label": (LOGITS, [0, 2], np.array([0, 2])),
    "multi_label": (LOGITS, [[0, 2], [1]], np.array([[1, 0, 1], [0, 1, 0]])),
    "regression": (LOGITS[:, :1], [1.5, -0.25], np.array([1.5, -0.25])),
}
REFERENCE = {
    "single_label": lambda logits, labels: functional.cross_entropy(logits, labels),
    "multi_label": lambda logits, labels: (
        functional.binary_cross_entropy_with_logits(logits, labels, reduction="sum") / labels.numel()
    ),
    "regression": lambda logits, labels: functional.mse_loss(logits[:, 0], labels),
}


def test_every_target_has_an_example_here():
    assert (
        [*EXAMPLES]
        == [*REFERENCE]
        == [name for name, target in TARGETS.items() if not (target.is_whole or target.needs_groups)]
    )


@pytest.mark.parametrize("name", EXAMPLES)
def test_labels_and_decisions_have_one_form(name):
    target, (logits, labels, expected) = TARGETS[name], EXAMPLES[name]
    encoded = target.label_array(labels, 3)
    np.testing.assert_array_equal(encoded, expected)
    scores = target.scores(logits)
    assert scores.ndim == target.score_dimensions
    decisions = target.decide(scores)
    assert decisions.shape == encoded.shape and decisions.dtype == encoded.dtype
    assert target.label_array([], 3).shape == encoded[:0].shape
    assert target.label_width(3) == (3 if encoded.ndim == 2 else 1)


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_loss_is_the_mean_over_the_labels(name):
    logits, _, labels = EXAMPLES[name]
    logits = torch.tensor(logits, dtype=torch.float32)
    labels = torch.tensor(labels) if name == "single_label" else torch.tensor(labels, dtype=torch.float32)
    weights = label_weights(labels, name)
    assert weights.shape == labels.shape and weights.sum() == labels.numel()
    torch.testing.assert_close(loss_for(name)({"logits": logits}, labels), REFERENCE[name](logits, labels))


def test_unknown_labels_are_nan_and_thresholds_decide():
    target = TARGETS["multi_label"]
    rows = target.label_array([[0], [1]], 3, [[2], []])
    assert rows.dtype == np.float64 and np.isnan(rows[0, 2]) and rows[1].tolist() == [0.0, 1.0, 0.0]
    assert target.decide(np.array([[0.4, 0.4]]), DecisionRule((0.3, 0.5))).tolist() == [[1, 0]]
    assert TARGETS["single_label"].scores(LOGITS).sum(axis=1) == pytest.approx(1.0)


def test_an_unknown_target_is_an_error_and_has_no_default_loss():
    with pytest.raises(ValueError, match=f"unknown label type 'ranking'; known: {', '.join(TARGETS)}"):
        loss_for("ranking")
    with pytest.raises(ValueError, match="registered already"):
        TARGETS.add(Regression())
    assert "ranking" not in TARGETS


def test_a_target_must_implement_its_loss():
    class Ranking(Target):
        name = "ranking"

    with pytest.raises(TypeError, match="loss_sum"):
        Ranking()


@pytest.mark.parametrize(
    "labels", [["a", "b"], [0, 1], [True], [1.0, 2.0], [1.5], [1, 0.5], [["a"], []], [[0.5]], [], ["a", 1.5]]
)
def test_exactly_one_kind_recognizes_labels(labels):
    summary = summarize_labels(labels)
    (kind,) = (kind for kind in TARGETS.values() if kind.recognizes(summary))
    assert kind.incompatibility(summary) is None or labels == [[0.5]]


@pytest.mark.parametrize("name", TARGETS)
def test_a_config_determines_the_kind_of_labels(name):
    config = BertConfig(num_labels=3)
    set_target(config, name)
    assert get_target(config) == name
    sharing = [kind.name for kind in TARGETS.values() if kind.problem_type == TARGETS[name].problem_type]
    assert hasattr(config, TARGET_ATTRIBUTE) == (TARGETS[name].problem_type is None or sharing[0] != name)
    assert get_target(BertConfig.from_dict(config.to_dict())) == name


def test_a_config_names_a_kind_of_labels_beyond_its_problem_type():
    class Counts(Regression):
        name = "counts"

    TARGETS.add(Counts())
    try:
        config = BertConfig(num_labels=1)
        set_target(config, "counts")
        assert (config.problem_type, getattr(config, TARGET_ATTRIBUTE)) == ("regression", "counts")
        assert get_target(BertConfig.from_dict(config.to_dict())) == "counts"
        set_target(config, "regression")
        assert get_target(config) == "regression"
    finally:
        TARGETS.remove("counts")
    assert get_target(BertConfig(num_labels=1)) == "regression"
    assert get_target(BertConfig(num_labels=3)) == "single_label"
