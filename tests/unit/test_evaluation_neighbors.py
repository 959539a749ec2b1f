"""Nearest neighbors of frozen features as a baseline for multi-label data."""

import numpy as np
import pytest

from hf_finetune.evaluation.neighbors import NUMBERS_OF_NEIGHBORS, SHARPNESSES, nearest_neighbors

FOLDS = np.arange(60) % 5


def clusters(seed=0):
    """Return features and labels of examples around three directions: the direction decides the labels."""
    rng = np.random.default_rng(seed)
    centers = np.eye(3, 8)
    kinds = np.arange(60) % 3
    features = centers[kinds] * rng.uniform(1, 100, (60, 1)) + rng.normal(scale=0.05, size=(60, 8))
    labels = np.array([[1, 0, 1, 0], [0, 1, 1, 0], [0, 0, 0, 1]])[kinds]
    return features.astype(np.float32), labels, centers.astype(np.float32)


def test_the_direction_of_the_features_decides_and_not_their_length():
    features, labels, queries = clusters()
    probe = nearest_neighbors({"": {"train": features, "test": 1000 * queries}}, labels, FOLDS)
    assert (probe.scores > 0.5).tolist() == [
        [True, False, True, False],
        [False, True, True, False],
        [False, False, False, True],
    ]
    assert probe.about["neighbors"] in NUMBERS_OF_NEIGHBORS and probe.about["sharpness"] in SHARPNESSES


def test_probabilities_of_equally_near_neighbors_are_their_mean_smoothed_by_the_frequencies():
    features = np.ones((20, 3), dtype=np.float32)
    labels = np.zeros((20, 2))
    labels[:5, 0] = 1
    probe = nearest_neighbors({"": {"train": features, "test": features[:1]}}, labels, np.arange(20) % 5)
    number = min(probe.about["neighbors"], 20)
    counted = probe.scores[0, 0] * (number + 1) - 0.25
    assert counted == pytest.approx(round(counted)) and 0 <= counted <= 5
    assert probe.scores[0, 1] == 0


def test_the_kind_of_features_with_the_lowest_held_out_loss_is_used():
    features, labels, queries = clusters()
    noise = np.random.default_rng(1).normal(size=features.shape).astype(np.float32)
    kinds = {"noise": {"train": noise, "test": noise[:3]}, "signal": {"train": features, "test": queries}}
    alone = nearest_neighbors({"": kinds["signal"]}, labels, FOLDS)
    chosen = nearest_neighbors(kinds, labels, FOLDS)
    assert np.array_equal(chosen.scores, alone.scores) and chosen.about == alone.about
    losses = [entry["loss"] for entry in chosen.about["cross_validation"]]
    assert len(losses) == len(NUMBERS_OF_NEIGHBORS) * len(SHARPNESSES)


def test_an_unknown_label_counts_as_the_frequency_of_its_class():
    features, labels, queries = clusters()
    unknown = labels.astype(np.float64)
    unknown[0, 3] = np.nan
    scores = nearest_neighbors({"": {"train": features, "test": queries}}, unknown, FOLDS).scores
    assert np.isfinite(scores).all()
    known = nearest_neighbors({"": {"train": features, "test": queries}}, labels, FOLDS).scores
    assert scores[0, 3] > known[0, 3]


def test_features_of_length_zero_are_no_error():
    features, labels, queries = clusters()
    features[7] = 0
    scores = nearest_neighbors({"": {"train": features, "test": 0 * queries}}, labels, FOLDS).scores
    assert np.isfinite(scores).all() and (scores >= 0).all() and (scores <= 1).all()
