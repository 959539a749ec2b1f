"""Labels and scores of examples, from which metrics are computed."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from random import Random

import numpy as np

from hf_finetune.targets.base import TARGETS
from hf_finetune.targets.decision_rule import DEFAULT_RULE, DecisionRule
from hf_finetune.targets.decisions import decide, probabilities
from hf_finetune.targets.labels import TargetName
from hf_finetune.targets.metric import NO_SETTINGS, MetricSettings
from hf_finetune.targets.top_scores import Scores, TopScores
from hf_finetune.targets.unknown_labels import fill_unknown

__all__ = ["ScoredExamples", "group_indices", "trial_examples"]


@dataclass(frozen=True)
class ScoredExamples:
    """Labels and scores of examples: everything that a metric receives.

    Attributes:
        labels: Class indices [examples], zeros and ones [examples, classes], regression targets or texts [examples];
            nan marks an unknown label of multi-label data.
        scores: Probabilities [examples, classes], only the highest of them (``TopScores``), regression predictions or
            texts [examples].
        target: Label type: ``single_label``, ``multi_label`` or ``regression``.
        rule: Rule that decides the classes of multi-label examples.
        groups: Index of the group of each example [examples], such as the query that it belongs to. Groups are
            resampled as a whole. None if the examples are independent.
        settings: Classes and costs, for the metrics that need them.
        weights: Number of times that each example counts [examples], whole numbers; None is once.
    """

    labels: np.ndarray
    scores: Scores
    target: TargetName
    rule: DecisionRule = DEFAULT_RULE
    groups: np.ndarray | None = None
    settings: MetricSettings = NO_SETTINGS
    weights: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, rows: np.ndarray) -> "ScoredExamples":
        groups, weights = (None if values is None else values[rows] for values in (self.groups, self.weights))
        return replace(
            self, labels=self.labels[rows], scores=self.scores[rows], groups=groups, weights=weights
        )

    @property
    def has_all_scores(self) -> bool:
        """Whether the scores are those of all classes, not only the highest ones."""
        return not isinstance(self.scores, TopScores)

    @cached_property
    def decisions(self) -> np.ndarray:
        """Decision for each example, in the form of the labels."""
        return decide(self.scores, self.target, self.rule)

    @cached_property
    def filled(self) -> tuple[np.ndarray, np.ndarray]:
        """Labels and decisions, with 0 in both where the label is unknown."""
        return fill_unknown(self.labels, self.decisions)

    @cached_property
    def correct(self) -> np.ndarray:
        """Whether each decision is correct [examples]; for multi-label data, whether all known labels match."""
        labels, decisions = self.filled
        matches: np.ndarray = (labels == decisions).reshape(len(self), -1).all(axis=1)
        return matches

    def repeated(self) -> "ScoredExamples":
        """Return each example as many times as its weight says, without weights.

        Each copy of a group is a group of its own.
        """
        if self.weights is None:
            return self
        times = self.weights.astype(np.int64)
        rows = np.repeat(np.arange(len(self)), times)
        groups = None
        if self.groups is not None:
            copies = np.arange(len(rows)) - np.repeat(times.cumsum() - times, times)
            groups = self.groups[rows] * times.max() + copies
        return replace(self[rows], groups=groups, weights=None)


def group_indices(groups: Sequence[str] | None) -> np.ndarray | None:
    """Return the index of the group of each example [examples], in the order of their names; None without groups.

    Args:
        groups: Name of the group of each example; None if the data has no groups.
    """
    return None if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]


def trial_examples(target: TargetName, classes: int) -> ScoredExamples:
    """Return a few examples on which to try a metric; classes and numbers are decided correctly.

    Args:
        target: Label type.
        classes: Number of classes.
    """
    kind = TARGETS[target]
    if kind.is_numeric:
        return ScoredExamples(np.array([0.0, 1.0]), np.array([0.0, 1.0]), target)
    if not kind.has_classes:
        rng = Random(0)
        labels = kind.label_array([kind.synthetic_label(rng, classes) for _ in range(2)], classes)
        if kind.is_text:
            return ScoredExamples(labels, labels, target)
        return ScoredExamples(labels, probabilities(np.eye(2, kind.score_width(classes)), target), target)
    scores = np.eye(max(classes, 2))
    labels = np.arange(len(scores)) if kind.is_exclusive else scores.astype(np.int64)
    return ScoredExamples(labels, scores, target)
