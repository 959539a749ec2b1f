"""TF-IDF features of texts, and the baseline on them."""

import numpy as np
import pytest
from datasets import Dataset
from scipy.sparse import csr_matrix, issparse

from hf_finetune.tasks import TASKS
from hf_finetune.tasks.text import tf_idf
from hf_finetune.tasks.text.tf_idf import tf_idf_features
from hf_finetune.training.linear_fit import fit_best, fit_linear
from hf_finetune.training.linear_folds import assign_folds

TRAIN = Dataset.from_dict({"text": ["a good film", "a bad film", "good", "bad plot", None]})
TEST = Dataset.from_dict({"text": ["good plot", "xyz"]})


def test_terms_are_those_of_the_training_split():
    features = tf_idf_features(TRAIN, TEST)
    assert list(features) == ["words", "characters"]
    train, test = features["words"]
    # a good film bad plot, a good, good film, a bad, bad film, bad plot
    assert train.shape == (5, 10) and test.shape == (2, 10)
    assert np.linalg.norm(train.toarray(), axis=1) == pytest.approx([1, 1, 1, 1, 0])
    assert test[1].nnz == 0 and features["characters"][1][1].nnz == 0


def test_characters_are_left_out_if_there_are_many(monkeypatch):
    monkeypatch.setattr(tf_idf, "MAX_CHARACTERS", 10)
    assert list(tf_idf_features(TRAIN, TEST)) == ["words"]


def test_the_two_texts_of_a_pair_have_their_own_terms():
    pairs = TRAIN.add_column("text_pair", ["good", "good", "film", "film", "bad"])
    test = TEST.add_column("text_pair", ["good", "good"])
    train, _ = tf_idf_features(pairs, test)["words"]
    assert train.shape == (5, 10 + 3)


def test_texts_without_any_word_have_no_kind_of_features():
    empty = Dataset.from_dict({"text": ["", " "]})
    assert tf_idf_features(empty, empty) == {}


def test_single_letters_are_words():
    letters = Dataset.from_dict({"text": ["a b", "b c"]})
    assert tf_idf_features(letters, letters)["words"][0].shape == (2, 5)


def test_languages_without_spaces_are_served_by_characters():
    """The sentences share no whole word, but parts of them."""
    kinds = ["甜汤很好喝", "甜汤不错", "这甜汤好", "面条太咸", "咸面条", "这面条咸了"] * 5
    dataset = Dataset.from_dict({"text": [f"{text}{number}" for number, text in enumerate(kinds)]})
    labels = np.array([0, 0, 0, 1, 1, 1] * 5)
    features = {kind: train for kind, (train, _) in tf_idf_features(dataset, dataset).items()}
    folds = assign_folds(labels.tolist(), "single_label", 1, 0)
    kind, fit, losses = fit_best(features, labels, "single_label", 2, folds)
    assert kind == "characters" and losses["characters"] < losses["words"] / 2
    assert (fit(features[kind]).argmax(axis=1) == labels).all()


@pytest.mark.parametrize("target", ["single_label", "multi_label", "regression"])
def test_a_fit_to_sparse_features_is_that_to_the_same_dense_ones_without_standardizing(target, monkeypatch):
    rng = np.random.default_rng(0)
    dense = rng.random((60, 12)) * (rng.random((60, 12)) < 0.3)
    labels = {
        "single_label": rng.integers(3, size=60),
        "multi_label": (rng.random((60, 3)) < 0.5).astype(float),
        "regression": rng.normal(size=60),
    }[target]
    classes = 1 if target == "regression" else 3
    fit = fit_linear(csr_matrix(dense), labels, target, classes, (1.0,))
    monkeypatch.setattr(
        "hf_finetune.training.linear_fit._scales", lambda features: np.ones(features.shape[1])
    )
    expected = fit_linear(dense, labels, target, classes, (1.0,))
    assert fit(csr_matrix(dense)) == pytest.approx(expected(dense), abs=1e-2)
    assert isinstance(fit(csr_matrix(dense)), np.ndarray)


def test_texts_have_this_baseline_and_it_is_sparse():
    features = TASKS["text-classification"].modality.simple_features
    assert features.name == "tf_idf"
    assert all(issparse(part) for pair in features.compute(TRAIN, TEST, None).values() for part in pair)
