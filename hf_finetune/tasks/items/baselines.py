"""Recommenders without a neural network: popularity, Markov chain, nearest items, and a linear model of items (EASE).

Each is fitted on the training histories. Its few settings are those with the best mean reciprocal rank on the
validation split; without one, the first.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import linalg, sparse

from hf_finetune.targets.top_scores import middle_ranks

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = ["fit_recommenders"]

logger = logging.getLogger(__name__)

MAX_EASE_ITEMS = 10_000
"""Number of items above which EASE is not fitted: it inverts a matrix of items x items."""
_SMALLEST = 1e-6
"""Score of a candidate without any evidence, as a share of the sum of the others."""
_ALL = 1_000_000


@dataclass(frozen=True)
class _Histories:
    """Histories as class indices, with the next item of each [examples]."""

    items: Sequence[np.ndarray]
    labels: np.ndarray

    def matrix(self, classes: int, last: int = _ALL) -> sparse.csr_array:
        """Return whether each item is among the last ones of each history [examples, classes]."""
        parts = [np.unique(history[-last:]) for history in self.items]
        rows = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
        columns = np.concatenate(parts) if parts else np.empty(0, dtype=np.int64)
        return sparse.csr_array((np.ones(len(rows)), (rows, columns)), shape=(len(parts), classes))


Score = Callable[[_Histories], np.ndarray]
"""Function from histories to the scores of all items [examples, classes]."""


def fit_recommenders(
    train: "Dataset", validation: "Dataset | None", test: "Dataset", *, exclude_seen: bool
) -> dict[str, tuple[np.ndarray, dict[str, Any]]]:
    """Fit the recommenders, and rank all items for each test example.

    Args:
        train: Training split with the columns ``items`` and ``label``.
        validation: Validation split, which chooses the settings; None takes the first ones.
        test: Test split.
        exclude_seen: Whether items of a history are ranked last. Items that are not in the training split always are.

    Returns:
        Scores of the test examples [examples, classes], which sum to 1 in each row, and the chosen settings, by name.
    """
    names = train.features["label"].names
    fitted, tested = _read(train, names), _read(test, names)
    sequences = [
        np.append(history, label) for history, label in zip(fitted.items, fitted.labels, strict=True)
    ]
    known = np.bincount(np.concatenate(sequences), minlength=len(names)) > 0
    held_out = None if validation is None else _read(validation, names)

    def ranked(score: Score, histories: _Histories) -> np.ndarray:
        return _as_probabilities(score(histories), histories, known, exclude_seen=exclude_seen)

    recommenders: dict[str, tuple[np.ndarray, dict[str, Any]]] = {}
    for name, candidates in _CANDIDATES.items():
        if name == "ease" and len(names) > MAX_EASE_ITEMS:
            logger.info("No EASE: %s items are more than %s.", f"{len(names):,}", f"{MAX_EASE_ITEMS:,}")
            continue
        best: tuple[float, Score, dict[str, Any]] | None = None
        for settings, score in candidates(sequences, len(names)):
            value = 0.0
            if held_out is not None:
                value = float((1 / (1 + middle_ranks(ranked(score, held_out), held_out.labels))).mean())
            if best is None or value > best[0]:
                best = value, score, settings
            if held_out is None:
                break
        assert best is not None
        chosen = ", ".join(f"{key} {value:g}" for key, value in best[2].items())
        logger.info("Baseline %s fitted%s.", name, f" with {chosen}" if chosen else "")
        recommenders[name] = ranked(best[1], tested), best[2]
    return recommenders


def _read(split: "Dataset", names: Sequence[str]) -> _Histories:
    """Return the histories of a split; items that are no class are left out."""
    index_of = {name: index for index, name in enumerate(names)}
    items = [
        np.array([index_of[word] for word in text.split() if word in index_of], dtype=np.int64)
        for text in split["items"][:]
    ]
    return _Histories(items, np.asarray(split["label"][:], dtype=np.int64))


def _as_probabilities(
    scores: np.ndarray, histories: _Histories, known: np.ndarray, *, exclude_seen: bool
) -> np.ndarray:
    """Return scores in the same order that sum to 1, 0 for items that cannot be recommended."""
    allowed = np.broadcast_to(known, scores.shape)
    if exclude_seen:
        allowed = allowed & ~histories.matrix(len(known)).toarray().astype(bool)
    lowest = np.where(allowed, scores, np.inf).min(axis=1, keepdims=True)
    shifted = np.where(allowed, scores - np.where(np.isfinite(lowest), lowest, 0.0), 0.0)
    total = shifted.sum(axis=1, keepdims=True)
    shifted = np.where(allowed, shifted + np.where(total > 0, _SMALLEST * total, 1.0), 0.0)
    sums = shifted.sum(axis=1, keepdims=True)
    # a row without any candidate is uniform
    probabilities: np.ndarray = np.where(sums > 0, shifted / np.where(sums > 0, sums, 1.0), 1 / len(known))
    return probabilities


Candidates = Iterator[tuple[dict[str, Any], Score]]


def _popularity(sequences: Sequence[np.ndarray], classes: int) -> Candidates:
    """Yield the number of events of each item in the training histories."""
    counts = np.bincount(np.concatenate(sequences), minlength=classes).astype(np.float64)
    yield {}, lambda histories: np.broadcast_to(counts, (len(histories.items), classes))


def _markov_chain(sequences: Sequence[np.ndarray], classes: int) -> Candidates:
    """Yield the frequency of each item after the last one, mixed with its popularity.

    With a reach above 1, items that follow at a distance d count as 1 / d.
    """
    counts = np.bincount(np.concatenate(sequences), minlength=classes)
    popularity = counts / counts.sum()
    for reach in (1, 2, 5, 10):
        following = _transitions(sequences, classes, reach)
        for weight in (1e-3, 0.1, 1.0, 10.0):
            yield {"reach": reach, "popularity": weight}, _after_last(following, weight * popularity)


def _after_last(following: sparse.csr_array, popularity: np.ndarray) -> Score:
    """Return a function that adds the popularity of all items to the row of the last item of each history."""
    return lambda histories: following[_last(histories, len(popularity))].toarray() + popularity


def _last(histories: _Histories, classes: int) -> np.ndarray:
    """Return the last item of each history; the row after the last class for a history without known items."""
    return np.array([history[-1] if len(history) else classes for history in histories.items])


def _transitions(sequences: Sequence[np.ndarray], classes: int, reach: int) -> sparse.csr_array:
    """Return the weighted counts of each item (columns) after each item (rows), with an empty last row."""
    rows, columns, weights = [], [], []
    for distance in range(1, reach + 1):
        for sequence in sequences:
            rows.append(sequence[:-distance])
            columns.append(sequence[distance:])
            weights.append(np.full(max(0, len(sequence) - distance), 1 / distance))
    entries = np.concatenate(weights), (np.concatenate(rows), np.concatenate(columns))
    return sparse.csr_array(entries, shape=(classes + 1, classes))


def _item_knn(sequences: Sequence[np.ndarray], classes: int) -> Candidates:
    """Yield the summed cosine similarity of each item to the last items of a history.

    Source: Sarwar et al. 2001, Item-based collaborative filtering; only the nearest items of each item count.
    """
    gram = _gram(sequences, classes)
    norms = np.sqrt(np.maximum(np.diag(gram), 1.0))
    similarity = gram / norms / norms[:, None]
    np.fill_diagonal(similarity, 0.0)
    for neighbors in (50, 200, classes):
        nearest = similarity
        if neighbors < classes:
            smallest = np.partition(similarity, classes - neighbors, axis=0)[classes - neighbors]
            nearest = np.where(similarity >= smallest, similarity, 0.0)
        for last in (5, 10, 20, _ALL):
            yield {"neighbors": neighbors, "last": last}, _linear(nearest, classes, last)


def _ease(sequences: Sequence[np.ndarray], classes: int) -> Candidates:
    """Yield the scores of a linear model that predicts each item of a history from the other ones.

    Source: Steck 2019, Embarrassingly shallow autoencoders for sparse data.
    """
    gram = _gram(sequences, classes)
    for strength in (30.0, 100.0, 300.0, 1000.0):
        inverse = linalg.inv(gram + strength * np.eye(classes), overwrite_a=True, check_finite=False)
        weights = -inverse / np.diag(inverse)
        np.fill_diagonal(weights, 0.0)
        for last in (5, 10, 20, _ALL):
            yield {"l2": strength, "last": last}, _linear(weights, classes, last)


def _gram(sequences: Sequence[np.ndarray], classes: int) -> np.ndarray:
    """Return the number of histories that contain both of two items [classes, classes]."""
    matrix = _Histories(sequences, np.empty(0)).matrix(classes)
    gram: np.ndarray = (matrix.T @ matrix).toarray()
    return gram


def _linear(weights: np.ndarray, classes: int, last: int) -> Score:
    """Return a function that sums the rows of a matrix over the last items of each history."""
    return lambda histories: histories.matrix(classes, last) @ weights


_CANDIDATES: dict[str, Callable[[Sequence[np.ndarray], int], Candidates]] = {
    "popularity": _popularity,
    "markov_chain": _markov_chain,
    "item_knn": _item_knn,
    "ease": _ease,
}
