"""Recommenders that need no checkpoint, on data whose best answer is known."""

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features, Value

from hf_finetune.targets.top_scores import middle_ranks
from hf_finetune.tasks.items import baselines
from hf_finetune.tasks.items.baselines import fit_recommenders
from hf_finetune.tasks.items.titles import TITLES

NAMES = ("a", "b", "c", "d", "e", "new")


def split(sequences):
    """Return histories whose last word is the label."""
    features = Features({"items": Value("string"), "label": ClassLabel(names=list(NAMES))})
    rows = [text.rsplit(" ", 1) for text in sequences]
    return Dataset.from_dict(
        {"items": [row[0] for row in rows], "label": [NAMES.index(row[1]) for row in rows]}, features=features
    )


TRAIN = split(["a b c", "a b c", "b a d e", "c a b", "d e a", "d e b"])
TEST = split(["c a b", "a d e", "e new a"])


def scores(name, *, validation=None, exclude_seen=False):
    return fit_recommenders(TRAIN, validation, TEST, exclude_seen=exclude_seen)[name][0]


@pytest.mark.parametrize("name", TITLES)
def test_scores_are_probabilities_in_which_new_items_are_last(name):
    found = scores(name)
    assert found.sum(axis=1) == pytest.approx(np.ones(3)) and (found >= 0).all()
    assert (found[:, NAMES.index("new")] == 0).all() and (found[:, :5] > 0).all()


@pytest.mark.parametrize("name", TITLES)
def test_seen_items_are_last_on_request(name):
    found = scores(name, exclude_seen=True)
    assert found[0, [0, 2]].tolist() == [0, 0] and found[0, 1] > 0
    assert found[2, [4]].tolist() == [0] and found.sum(axis=1) == pytest.approx(np.ones(3))


def test_popularity_counts_the_events_of_training():
    order = np.argsort(-scores("popularity")[0], kind="stable").tolist()
    # a 5, b 5, c 3, d 3, e 3
    assert order == [0, 1, 2, 3, 4, 5]
    assert middle_ranks(scores("popularity"), np.array([0, 2, 5])).tolist() == [0.5, 3.0, 5.0]


def test_the_markov_chain_counts_what_follows_the_last_item():
    found = scores("markov_chain")
    assert found[0].argmax() == NAMES.index("b")  # a -> b 3 times, a -> d once
    assert found[1].argmax() == NAMES.index("e")  # d -> e always
    assert np.argsort(-found[0])[1] == NAMES.index("d")


def test_the_linear_model_is_that_of_the_paper():
    matrix = np.zeros((6, 6))
    for row, (text, label) in enumerate(zip(TRAIN["items"], TRAIN["label"], strict=True)):
        for word in [*text.split(), NAMES[label]]:
            matrix[row, NAMES.index(word)] = 1
    strength, weights = 30.0, np.zeros((6, 6))
    for column in range(6):  # ridge regression of each item on the other ones
        others = [index for index in range(6) if index != column]
        inputs = matrix[:, others]
        solution = np.linalg.solve(inputs.T @ inputs + strength * np.eye(5), inputs.T @ matrix[:, column])
        weights[others, column] = solution
    expected = weights[[2, 0]].sum(axis=0)[:5]
    found = scores("ease")[0][:5]
    assert np.argsort(found).tolist() == np.argsort(expected).tolist()


def test_the_nearest_items_are_those_of_the_same_histories():
    assert scores("item_knn", exclude_seen=True)[1].argmax() in (NAMES.index("b"), NAMES.index("e"))


def test_settings_are_chosen_on_the_validation_split():
    validation = split(["a c", "a c"])
    fitted = fit_recommenders(TRAIN, validation, TEST, exclude_seen=False)
    assert set(fitted) == set(TITLES)
    first = fit_recommenders(TRAIN, None, TEST, exclude_seen=False)
    assert first["markov_chain"][1] == {"reach": 1, "popularity": 1e-3}
    # a is followed by c only at a distance of two
    assert fitted["markov_chain"][1]["reach"] == 2


def test_a_history_without_known_items_is_ranked_by_popularity():
    found = fit_recommenders(TRAIN, None, split(["new a"]), exclude_seen=False)["markov_chain"][0]
    assert np.argsort(-found[0], kind="stable").tolist() == [0, 1, 2, 3, 4, 5]


def test_a_large_catalogue_has_no_linear_model(monkeypatch):
    monkeypatch.setattr(baselines, "MAX_EASE_ITEMS", 5)
    assert "ease" not in fit_recommenders(TRAIN, None, TEST, exclude_seen=False)
