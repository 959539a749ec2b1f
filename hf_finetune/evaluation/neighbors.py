"""Nearest neighbors: a baseline that averages the labels of the training examples with the most similar features."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product

import numpy as np
from sklearn.neighbors import NearestNeighbors

from hf_finetune.evaluation.linear_probe import Probe
from hf_finetune.targets.unknown_labels import is_known, mean_of_known

__all__ = ["NUMBERS_OF_NEIGHBORS", "SHARPNESSES", "nearest_neighbors"]

NUMBERS_OF_NEIGHBORS = (10, 20, 40, 80)
"""Numbers of neighbors from which cross-validation chooses."""
SHARPNESSES = (0.0, 4.0, 8.0, 12.0, 16.0, 32.0, 64.0)
"""Factors on the cosine similarity from which cross-validation chooses; 0 gives all neighbors the same weight."""
MIN_PROBABILITY = 1e-6
"""Lower bound of probabilities before the logarithm is taken."""

Setting = tuple[int, float]
"""Number of neighbors and sharpness."""


@dataclass(frozen=True)
class _Neighbors:
    """Nearest training examples of some queries, the nearest first.

    Attributes:
        rows: Their rows in the training examples [queries, neighbors].
        similarities: Their cosine similarities [queries, neighbors].
    """

    rows: np.ndarray
    similarities: np.ndarray


def nearest_neighbors(
    features: Mapping[str, Mapping[str, np.ndarray]], labels: np.ndarray, folds: np.ndarray
) -> Probe:
    """Predict the labels of the nearest training examples, by the cosine similarity of frozen features.

    Neighbors with the similarity ``s`` have the weight ``exp(sharpness s)``. The probability of a class is
    ``(n m + f) / (n + 1)``: ``m`` is its weighted mean label, ``n`` the effective number of neighbors (Kish), and ``f``
    its frequency in the training split. The number of neighbors, the sharpness, and the kind of features if there are
    several, are those of the lowest log loss in cross-validation.

    Args:
        features: Features [examples, features] of the splits ``train`` and ``test``, by the name of their kind.
        labels: Zeros and ones [examples, classes] of the training split; nan marks an unknown label.
        folds: Fold number of each training example, from ``assign_folds``.

    Returns:
        Probabilities [examples, classes] of the test split; ``about`` has the setting, and the log loss of each tried.

    Source: Zhang & Zhou 2007, ML-kNN, which also smooths the labels of neighbors by the frequencies of the classes.
    """
    labels = np.where(is_known(labels), labels, mean_of_known(labels))
    unit = {
        kind: {name: _unit_length(part) for name, part in parts.items()} for kind, parts in features.items()
    }
    losses = {kind: _held_out_losses(parts["train"], labels, folds) for kind, parts in unit.items()}
    kind = min(losses, key=lambda name: min(losses[name].values()))
    number, sharpness = setting = min(losses[kind], key=losses[kind].__getitem__)
    scores = _predict(_search(unit[kind]["train"], unit[kind]["test"], number), labels, setting)
    tried = [
        {"neighbors": neighbors, "sharpness": factor, "loss": loss}
        for (neighbors, factor), loss in losses[kind].items()
    ]
    about = {"method": "nearest_neighbors", "neighbors": number, "sharpness": sharpness}
    return Probe(scores, {**about, "cross_validation": tried})


def _unit_length(features: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    unit: np.ndarray = features / np.where(lengths > 0, lengths, 1.0)
    return unit


def _held_out_losses(features: np.ndarray, labels: np.ndarray, folds: np.ndarray) -> dict[Setting, float]:
    """Return the mean log loss of held-out examples by setting."""
    losses = dict.fromkeys(product(NUMBERS_OF_NEIGHBORS, SHARPNESSES), 0.0)
    for fold in np.unique(folds):
        held_out = folds == fold
        neighbors = _search(features[~held_out], features[held_out], max(NUMBERS_OF_NEIGHBORS))
        for setting in losses:
            scores = _predict(neighbors, labels[~held_out], setting)
            losses[setting] += _log_loss(scores, labels[held_out]) / labels.size
    return losses


def _search(train: np.ndarray, queries: np.ndarray, number: int) -> _Neighbors:
    """Return the nearest training examples of each query; all of them if there are fewer."""
    search = NearestNeighbors(n_neighbors=min(number, len(train)), algorithm="brute").fit(train)
    distances, rows = search.kneighbors(queries)
    return _Neighbors(rows, 1 - distances**2 / 2)


def _predict(neighbors: _Neighbors, labels: np.ndarray, setting: Setting) -> np.ndarray:
    """Return the probability of each class [queries, classes], from the labels of the training examples."""
    number, sharpness = setting
    similarities = neighbors.similarities[:, :number]
    weights = np.exp(sharpness * (similarities - similarities[:, :1]))
    counts = np.zeros((len(weights), labels.shape[1]))
    for weight, rows in zip(weights.T, neighbors.rows[:, :number].T, strict=True):
        counts += weight[:, None] * labels[rows]
    total, squares = weights.sum(axis=1), (weights**2).sum(axis=1)
    effective = total**2 / squares
    means = counts / total[:, None]
    smoothed: np.ndarray = (effective[:, None] * means + labels.mean(axis=0)) / (effective[:, None] + 1)
    return smoothed


def _log_loss(scores: np.ndarray, labels: np.ndarray) -> float:
    scores = np.clip(scores, MIN_PROBABILITY, 1 - MIN_PROBABILITY)
    return float(-(labels * np.log(scores) + (1 - labels) * np.log1p(-scores)).sum())
