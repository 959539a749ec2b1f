"""Scores and decisions of a model from its logits."""

import numpy as np

from hf_finetune.targets.base import TARGETS
from hf_finetune.targets.decision_rule import DEFAULT_RULE, DecisionRule
from hf_finetune.targets.labels import TargetName
from hf_finetune.targets.top_scores import Scores, TopScores

__all__ = ["constant_logits", "decide", "probabilities"]


def probabilities(logits: np.ndarray, target: TargetName) -> np.ndarray:
    """Convert logits to scores.

    Args:
        logits: Logits [examples, classes]; for regression [examples, 1] or [examples]; for texts the texts [examples].
        target: Label type: ``single_label``, ``multi_label`` or ``regression``.

    Returns:
        Softmax (single_label) or sigmoid (multi_label) [examples, classes], or regression predictions [examples], in
        float64; or texts [examples].
    """
    kind = TARGETS[target]
    return kind.scores(np.asarray(logits, dtype=kind.score_type))


def constant_logits(labels: np.ndarray, target: TargetName, classes: int) -> np.ndarray:
    """Return the logits of the constant prediction of labels with classes: their frequencies.

    A class that no example has, or all have, counts as if half an example were different.

    Args:
        labels: Labels of examples, as ``Target.label_array`` returns them.
        target: Label type.
        classes: Number of classes.

    Returns:
        Logits [classes].

    Source: Lin et al. 2017, Focal loss, which initializes the biases of a detector in this way.
    """
    margin = 0.5 / len(labels)
    frequencies = TARGETS[target].constant_prediction(labels, classes)
    frequencies = np.clip(np.nan_to_num(frequencies, nan=0.5), margin, 1 - margin)
    logits: np.ndarray = np.log(frequencies)
    return logits if TARGETS[target].is_exclusive else logits - np.log1p(-frequencies)


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
