"""The highest probabilities of each example in place of those of all classes, where there are many."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["MANY_CLASSES", "TOP", "Scores", "TopScores", "confidences", "keep_top", "label_ranks"]

MANY_CLASSES = 200
"""Classes above which tables hold the highest probabilities of an example only."""
TOP = 20
"""How many those are."""


@dataclass(frozen=True)
class TopScores:
    """The highest probabilities of each example, and what the metrics need besides.

    Attributes:
        classes: Number of classes.
        indices: The most probable classes [examples, top], the most probable first, of equal ones the first class.
        values: Their probabilities [examples, top].
        decisions: Class indices [examples], or zeros and ones [examples, classes] of multi-label data.
        of_label: Probability of the labelled class [examples]; None for multi-label data.
        ranks: Number of classes ranked above the labelled one [examples], see ``label_ranks``; None as above.
    """

    classes: int
    indices: np.ndarray
    values: np.ndarray
    decisions: np.ndarray
    of_label: np.ndarray | None = None
    ranks: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, rows: np.ndarray) -> "TopScores":
        return TopScores(
            self.classes,
            self.indices[rows],
            self.values[rows],
            self.decisions[rows],
            None if self.of_label is None else self.of_label[rows],
            None if self.ranks is None else self.ranks[rows],
        )

    @property
    def shape(self) -> tuple[int, int]:
        """Number of examples and classes, as that of an array of all probabilities."""
        return len(self.indices), self.classes

    def reordered(self, columns: Sequence[int]) -> "TopScores":
        """Return the scores of the classes in another order: ``columns`` [classes] holds the present place of each."""
        places = np.argsort(columns)
        single = self.decisions.ndim == 1
        decisions = places[self.decisions] if single else self.decisions[:, columns]
        return TopScores(
            self.classes, places[self.indices], self.values, decisions, self.of_label, self.ranks
        )


Scores = np.ndarray | TopScores
"""Probabilities [examples, classes], amounts [examples], or the highest probabilities."""


def keep_top(scores: np.ndarray, labels: np.ndarray, decisions: np.ndarray, top: int = TOP) -> TopScores:
    """Return the highest probabilities of each example.

    Args:
        scores: Probabilities [examples, classes].
        labels: Class indices [examples], or zeros and ones [examples, classes].
        decisions: As the labels.
        top: How many to keep.
    """
    classes = scores.shape[1]
    kept = min(top, classes)
    # Of equal probabilities at the edge argpartition keeps any; the first of all is put right by the decision.
    indices = np.argpartition(scores, classes - kept, axis=1)[:, classes - kept :] if kept < classes else None
    indices = (
        np.broadcast_to(np.arange(classes), scores.shape) if indices is None else np.sort(indices, axis=1)
    )
    values = np.take_along_axis(scores, indices, axis=1)
    order = np.argsort(-values, axis=1, kind="stable")
    indices, values = np.take_along_axis(indices, order, axis=1), np.take_along_axis(values, order, axis=1)
    if labels.ndim == 2:
        return TopScores(classes, indices, values, decisions)
    of_label = scores[np.arange(len(labels)), labels]
    return TopScores(classes, indices, values, decisions, of_label, label_ranks(scores, labels))


def label_ranks(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return how many classes are ranked above the labelled one [examples].

    Of equal probabilities the greater index ranks higher, as in scikit-learn's ``top_k_accuracy_score``.

    Args:
        scores: Probabilities [examples, classes].
        labels: Class indices [examples].
    """
    of_label = scores[np.arange(len(labels)), labels][:, None]
    equal = scores == of_label
    equal &= np.arange(scores.shape[1]) > labels[:, None]
    ranks: np.ndarray = (scores > of_label).sum(axis=1) + equal.sum(axis=1)
    return ranks


def confidences(scores: Scores) -> np.ndarray:
    """Return the highest probability of each example."""
    highest: np.ndarray = scores.values[:, 0] if isinstance(scores, TopScores) else scores.max(axis=1)
    return highest
