"""Top-k probabilities of each example, which replace those of all classes if there are many classes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

__all__ = [
    "MANY_CLASSES",
    "MAX_SCORES_IN_MEMORY",
    "NUM_STORED",
    "Scores",
    "TopScores",
    "confidences",
    "constant_scores",
    "keep_top",
    "label_ranks",
    "middle_ranks",
    "needs_reduction",
    "pack_top",
    "predicted_classes",
    "stack_top",
    "top_indices",
    "unpack_top",
]

MANY_CLASSES = 200
"""Number of classes above which tables contain only the highest probabilities of an example."""
NUM_STORED = 20
"""Number of the highest probabilities that are stored."""
MAX_SCORES_IN_MEMORY = 12_000_000
"""Maximum number of probabilities (examples x classes) in memory; above it, every batch is reduced to the highest."""


@dataclass(frozen=True)
class TopScores:
    """Highest probabilities of each example, with further values that metrics need.

    Attributes:
        classes: Number of classes.
        indices: The most probable classes [examples, top] in descending order; ties are in the order of the classes.
        values: Their probabilities [examples, top].
        decisions: Class indices [examples], or zeros and ones [examples, classes] for multi-label data.
        label_probabilities: Probability of the true class [examples]; None for multi-label data.
        ranks: Number of classes ranked above the true one [examples], see ``label_ranks``; None for multi-label data.
        middle_ranks: The same with ties at their middle, see ``middle_ranks``; None if unknown.
    """

    classes: int
    indices: np.ndarray
    values: np.ndarray
    decisions: np.ndarray
    label_probabilities: Any = None
    ranks: Any = None
    middle_ranks: Any = None

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, rows: np.ndarray) -> "TopScores":
        of_labels = (self.label_probabilities, self.ranks, self.middle_ranks)
        return TopScores(
            self.classes,
            self.indices[rows],
            self.values[rows],
            self.decisions[rows],
            *(None if values is None else values[rows] for values in of_labels),
        )

    @property
    def shape(self) -> tuple[int, int]:
        """Shape that the array of all probabilities would have: examples, classes."""
        return len(self.indices), self.classes

    def reordered(self, columns: Sequence[int]) -> "TopScores":
        """Return the scores with the classes in another order.

        Args:
            columns: Current index of each class, in the new order [classes].
        """
        new_index = np.argsort(columns)
        single = self.decisions.ndim == 1
        decisions = new_index[self.decisions] if single else self.decisions[:, columns]
        return TopScores(
            self.classes,
            new_index[self.indices],
            self.values,
            decisions,
            self.label_probabilities,
            self.ranks,
            self.middle_ranks,
        )


Scores: TypeAlias = Any
"""Array of probabilities [examples, classes] or of regression predictions [examples], or ``TopScores``."""


def needs_reduction(examples: int, classes: int) -> bool:
    """Return whether only the highest probabilities are stored, because all of them would take too much memory.

    Args:
        examples: Number of examples.
        classes: Number of classes.
    """
    return classes > MANY_CLASSES and examples * classes > MAX_SCORES_IN_MEMORY


def keep_top(
    scores: np.ndarray, labels: np.ndarray, decisions: np.ndarray, top: int = NUM_STORED
) -> TopScores:
    """Return the highest probabilities of each example.

    Args:
        scores: Probabilities [examples, classes].
        labels: Class indices [examples], or zeros and ones [examples, classes].
        decisions: Decisions, in the shape of the labels.
        top: Number of classes to keep per example.
    """
    classes = scores.shape[1]
    indices = top_indices(scores, top)
    values = np.take_along_axis(scores, indices, axis=1)
    if labels.ndim == 2:
        return TopScores(classes, indices, values, decisions)
    label_probabilities = scores[np.arange(len(labels)), labels]
    ranks = label_ranks(scores, labels), middle_ranks(scores, labels)
    return TopScores(classes, indices, values, decisions, label_probabilities, *ranks)


def top_indices(scores: np.ndarray, top: int = NUM_STORED) -> np.ndarray:
    """Return the most probable classes of each example.

    Args:
        scores: Probabilities [examples, classes].
        top: Number of classes per example; all if there are fewer.

    Returns:
        Class indices [examples, top], the most probable first; ties are in the order of the classes.
    """
    classes = scores.shape[1]
    if classes <= top:
        return np.argsort(-scores, axis=1, kind="stable")
    indices = np.sort(np.argpartition(scores, classes - top, axis=1)[:, classes - top :], axis=1)
    values = np.take_along_axis(scores, indices, axis=1)
    order = np.argsort(-values, axis=1, kind="stable")
    indices = np.take_along_axis(indices, order, axis=1)
    # argpartition picks arbitrarily among the classes that tie with the last one
    tied = np.count_nonzero(scores >= values.min(axis=1)[:, None], axis=1) > top
    indices[tied] = np.argsort(-scores[tied], axis=1, kind="stable")[:, :top]
    return indices


def stack_top(parts: Sequence[TopScores]) -> TopScores:
    """Concatenate the scores of several batches of single-label examples.

    Args:
        parts: Scores of each batch, in order.

    Returns:
        The scores of all examples.
    """
    return TopScores(
        parts[0].classes,
        np.concatenate([part.indices for part in parts]),
        np.concatenate([part.values for part in parts]),
        np.concatenate([part.decisions for part in parts]),
        np.concatenate([part.label_probabilities for part in parts if part.label_probabilities is not None]),
        np.concatenate([part.ranks for part in parts if part.ranks is not None]),
        np.concatenate([part.middle_ranks for part in parts if part.middle_ranks is not None]),
    )


def pack_top(scores: TopScores) -> np.ndarray:
    """Return single-label scores as one float32 array [examples, 2 top + 3], for code that can only gather arrays.

    Args:
        scores: Highest probabilities, with those of the labels.
    """
    of_labels = (scores.label_probabilities, scores.ranks, scores.middle_ranks)
    columns = (scores.indices, scores.values, *(values[:, None] for values in of_labels))
    return np.concatenate(columns, axis=1).astype(np.float32)


def unpack_top(packed: np.ndarray, classes: int) -> TopScores:
    """Return the scores that ``pack_top`` packed, with probabilities in float32 precision.

    Args:
        packed: Array [examples, 2 top + 3] of ``pack_top``.
        classes: Number of classes.
    """
    top = (packed.shape[1] - 3) // 2
    indices = packed[:, :top].astype(np.int64)
    values, label_probabilities, middle = (
        columns.astype(np.float64) for columns in (packed[:, top:-3], packed[:, -3], packed[:, -1])
    )
    ranks = packed[:, -2].astype(np.int64)
    return TopScores(classes, indices, values, indices[:, 0], label_probabilities, ranks, middle)


def constant_scores(probabilities: np.ndarray, labels: np.ndarray) -> TopScores:
    """Return the scores of a constant prediction for all single-label examples.

    Args:
        probabilities: Probabilities [classes], the same for every example.
        labels: Class indices [examples].
    """
    classes, class_rows = np.unique(labels, return_inverse=True)
    constant = keep_top(
        np.broadcast_to(probabilities, (1, len(probabilities))),
        np.zeros(1, dtype=np.int64),
        np.array([probabilities.argmax()]),
    )
    ranks, middle = (
        np.array([rank(probabilities[None], np.array([index]))[0] for index in classes])
        for rank in (label_ranks, middle_ranks)
    )
    rows = np.zeros(len(labels), dtype=np.int64)
    return TopScores(
        len(probabilities),
        constant.indices[rows],
        constant.values[rows],
        constant.decisions[rows],
        probabilities[labels],
        ranks[class_rows],
        middle[class_rows],
    )


def label_ranks(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the number of classes ranked above the true one.

    On ties the greater index ranks higher, as in scikit-learn's ``top_k_accuracy_score``.

    Args:
        scores: Probabilities [examples, classes].
        labels: Class indices [examples].

    Returns:
        Rank of the true class, from 0 [examples].
    """
    label_probabilities = scores[np.arange(len(labels)), labels][:, None]
    equal = scores == label_probabilities
    equal &= np.arange(scores.shape[1]) > labels[:, None]
    ranks: np.ndarray = (scores > label_probabilities).sum(axis=1) + equal.sum(axis=1)
    return ranks


def middle_ranks(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the number of classes ranked above the true one, where each class with its score counts as a half.

    Args:
        scores: Probabilities [examples, classes].
        labels: Class indices [examples].

    Returns:
        Rank of the true class, from 0 [examples], float64.
    """
    label_probabilities = scores[np.arange(len(labels)), labels][:, None]
    above, equal = (scores > label_probabilities).sum(axis=1), (scores == label_probabilities).sum(axis=1)
    ranks: np.ndarray = above + (equal - 1) / 2
    return ranks


def confidences(scores: Scores) -> np.ndarray:
    """Return the highest probability of each example [examples].

    Args:
        scores: Probabilities [examples, classes], or only the highest of them.
    """
    highest: np.ndarray = scores.values[:, 0] if isinstance(scores, TopScores) else scores.max(axis=1)
    return highest


def predicted_classes(scores: Scores) -> np.ndarray:
    """Return the most probable class of each single-label example [examples]."""
    classes: np.ndarray = scores.decisions if isinstance(scores, TopScores) else scores.argmax(axis=-1)
    return classes
