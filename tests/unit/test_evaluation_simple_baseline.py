"""Baselines of simple features: a linear model, and gradient boosting."""

import logging
from types import SimpleNamespace

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features, Value

from hf_finetune.cache.cut_point import CacheUnavailableError
from hf_finetune.evaluation import simple_baseline
from hf_finetune.evaluation.linear_probe import check_work
from hf_finetune.evaluation.simple_baseline import simple_baselines
from hf_finetune.tasks.examples import SimpleFeatures

RECIPE = SimpleNamespace(data=None, seed=0)
NAMES = ("no", "yes", "maybe")


def boosted(compute=None):
    def features(train, test, data):
        return {"": tuple(np.array(part["number"])[:, None] for part in (train, test))}

    return SimpleFeatures("numbers", "numbers", compute or features, boosting=True)


def data_of(labels, classes=2):
    """Return examples whose number is their label, with noise."""
    rng = np.random.default_rng(0)
    form = Features({"number": Value("float64"), "label": ClassLabel(names=list(NAMES[:classes]))})
    train = Dataset.from_dict(
        {"number": np.array(labels) + rng.normal(scale=0.1, size=len(labels)), "label": labels}, form
    )
    return SimpleNamespace(
        train=train, test=train, target="single_label", label_names=NAMES[:classes], train_groups=()
    )


def test_both_models_learn_what_the_features_say():
    data = data_of([0, 1] * 40)
    fitted = simple_baselines(boosted(), data, RECIPE)
    assert list(fitted) == ["numbers", "numbers_boosting"]
    for probe in fitted.values():
        assert probe.scores.shape == (80, 2) and probe.scores.sum(axis=1) == pytest.approx(1)
        assert (probe.scores.argmax(axis=1) == data.train["label"]).mean() > 0.95


@pytest.mark.parametrize("rare", [1, 3])
def test_a_class_with_fewer_examples_than_folds_is_no_error(rare):
    data = data_of([0] * 60 + [1] * 40 + [2] * rare, classes=3)
    scores = simple_baselines(boosted(), data, RECIPE)["numbers_boosting"].scores
    assert np.isfinite(scores).all() and scores.shape == (100 + rare, 3)


def test_boosting_is_left_out_with_a_reason(caplog, monkeypatch):
    caplog.set_level(logging.INFO)
    assert list(simple_baselines(boosted(), data_of([0] * 59 + [1]), RECIPE)) == ["numbers"]
    assert "a fold of the cross-validation has only one class" in caplog.text
    monkeypatch.setattr(simple_baseline, "MAX_BOOSTING_CELLS", 100)
    assert list(simple_baselines(boosted(), data_of([0, 1] * 40), RECIPE)) == ["numbers"]
    assert "80 examples x 2 classes take too long to fit" in caplog.text


def test_no_features_are_no_baseline():
    with pytest.raises(CacheUnavailableError, match="no such features"):
        simple_baselines(boosted(lambda train, test, data: {}), data_of([0, 1] * 10), RECIPE)


def test_sparse_features_of_many_terms_and_classes_are_not_fitted():
    from scipy.sparse import csr_matrix

    terms = csr_matrix((np.ones(3), ([0, 1, 2], [0, 1, 99_999])), shape=(3, 100_000))
    check_work({"words": terms}, 100)
    with pytest.raises(CacheUnavailableError, match="100,000 features x 1,000 classes"):
        check_work({"words": terms}, 1000)
