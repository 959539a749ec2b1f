"""Decisions of multi-label examples: thresholds and the most probable classes."""

import numpy as np
import pytest

from hf_finetune.targets.decision_rule import DEFAULT_RULE, DecisionRule
from hf_finetune.targets.decisions import decide
from hf_finetune.targets.scored_examples import ScoredExamples

SCORES = np.array([[0.9, 0.4, 0.6], [0.1, 0.2, 0.3], [0.5, 0.5, 0.5]])


def test_classes_that_reach_their_threshold_are_decided():
    assert DEFAULT_RULE(SCORES).tolist() == [[1, 0, 1], [0, 0, 0], [1, 1, 1]]
    assert DecisionRule((0.95, 0.2, 0.6))(SCORES).tolist() == [[0, 1, 1], [0, 1, 0], [0, 1, 0]]


def test_the_most_probable_classes_are_decided_whatever_their_probabilities():
    decisions = DecisionRule(top_k=2)(SCORES)
    assert decisions.tolist() == [[1, 0, 1], [0, 1, 1], [1, 1, 0]] and decisions.dtype == np.int64
    assert (decide(SCORES, "multi_label", DecisionRule(top_k=2)) == decisions).all()


@pytest.mark.parametrize("rule", [DecisionRule((0.1, 0.2, 0.3)), DecisionRule(top_k=1), DEFAULT_RULE])
def test_a_rule_follows_the_order_of_the_classes(rule):
    columns, scores = [2, 0, 1], np.array([[0.15, 0.12, 0.4]])
    assert (rule.reordered(columns)(scores[:, columns]) == rule(scores)[:, columns]).all()


def test_the_rule_of_a_run_has_the_thresholds_in_the_order_of_the_classes():
    assert DecisionRule.of_run({"a": 0.1, "b": 0.2}, ["b", "a"], None) == DecisionRule((0.2, 0.1))
    assert DecisionRule.of_run(None, ["b", "a"], 1) == DecisionRule(top_k=1)


def test_selected_examples_keep_their_rule():
    examples = ScoredExamples(SCORES > 0.5, SCORES, "multi_label", DecisionRule(top_k=1))
    assert examples[np.array([1, 2])].decisions.tolist() == [[0, 0, 1], [1, 0, 0]]
