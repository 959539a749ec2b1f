"""Scores and decisions of a model from its logits."""

import numpy as np

from hf_finetune.targets.base import TARGETS
from hf_finetune.targets.decision_rule import DEFAULT_RULE, DecisionRule
from hf_finetune.targets.labels import TargetName
from hf_finetune.targets.top_scores import Scores, TopScores

__all__ = ["decide", "probabilities"]


def probabilities(logits: np.ndarray, target: TargetName) -> np.ndarray:
    """Convert logits to scores.

    Args:
        logits: Logits [examples, classes]; for regression [examples, 1] or [examples].
        target: Label type: ``single_label``, ``multi_label`` or ``regression``.

    Returns:
        Softmax (single_label) or sigmoid (multi_label) [examples, classes], or regression predictions [examples], in
        float64.
    """
    return TARGETS[target].scores(np.asarray(logits, dtype=np.float64))


def decide(scores: Scores, target: TargetName, rule: DecisionRule = DEFAULT_RULE) -> np.ndarray:
    """Return the decision for each example.

    Args:
        scores: Probabilities [examples, classes], or regression predictions [examples].
        target: Label type: ``single_label``, ``multi_label`` or ``regression``.
        rule: Rule that decides the classes of multi-label examples.

    Returns:
        The most probable class [examples], zeros and ones [examples, classes], or the regression predictions
        [examples].
    """
    if isinstance(scores, TopScores):
        return scores.decisions
    return TARGETS[target].decide(scores, rule)
