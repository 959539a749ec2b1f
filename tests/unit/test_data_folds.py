"""Folds of a cross-validation: each example is held out once, copies and groups stay together."""

from collections import Counter

import pytest
from test_data_prepare import prepare, write_rows

from hf_finetune.errors import InputError


def folds_of(path, count, **options):
    return [prepare(path, fold=f"{number}/{count}", **options) for number in range(1, count + 1)]


@pytest.mark.parametrize("count", [2, 3, 5])
def test_each_example_that_is_not_for_the_test_is_held_out_once(tmp_path, count):
    path = write_rows(tmp_path / "rows.jsonl", 60)
    test = set(prepare(path).test["id"])
    made = folds_of(path, count)
    held_out = Counter(name for data in made for name in data.test["id"])
    assert set(held_out.values()) == {1} and not test & set(held_out) and len(held_out) == 60 - len(test)
    for data in made:
        parts = [set(part["id"]) for part in (data.train, data.validation, data.test)]
        assert sum(map(len, parts)) == len(set.union(*parts)) == 60 - len(test)
        for part in (data.train, data.test):
            counts = Counter(part["label"])
            assert max(counts.values()) - min(counts.values()) <= 2


def test_folds_are_the_same_again_and_others_for_another_seed(tmp_path):
    path = write_rows(tmp_path / "rows.jsonl", 60)
    one, again, other = (prepare(path, fold="1/3", seed=seed).test["id"] for seed in (0, 0, 1))
    assert list(one) == list(again) != list(other)


def test_copies_and_groups_stay_together(tmp_path):
    words = [f"text {row // 2}" for row in range(60)]
    path = write_rows(tmp_path / "copies.jsonl", 60, labels=("a", "a", "b", "b"), text=words)
    for data in folds_of(path, 3, test=0.0):
        assert not set(data.test["text"]) & {*data.train["text"], *data.validation["text"]}
    days = [f"day {row // 6}" for row in range(60)]
    path = write_rows(tmp_path / "groups.jsonl", 60, day=days)
    of = {f"groups.jsonl:{row}": day for row, day in enumerate(days)}
    for data in folds_of(path, 5, test=0.0, group="day"):
        place = [{of.get(name, name) for name in part["id"]} for part in (data.train, data.test)]
        assert not place[0] & place[1]


def test_a_class_that_is_too_small_is_always_trained_on(tmp_path):
    labels = ["a", "b"] * 14 + ["rare", "rare"]
    path = write_rows(tmp_path / "rows.jsonl", 30, labels=labels)
    for data in folds_of(path, 5, test=0.0, validation=0.0):
        names = data.train.features["label"].names
        assert Counter(names[label] for label in data.train["label"])["rare"] == 2
        assert data.validation is None


def test_all_folds_share_the_examples_that_they_are_made_of(tmp_path):
    one, two = folds_of(write_rows(tmp_path / "rows.jsonl", 40), 2)
    assert one.pool.fingerprint == two.pool.fingerprint and one.fingerprint != two.fingerprint
    for data in (one, two):
        for split in ("train", "validation", "test"):
            chosen = data.pool.dataset.select(data.pool.rows[split])
            assert list(chosen["id"]) == list(getattr(data, split)["id"])


def test_more_folds_than_groups_are_refused(tmp_path):
    path = write_rows(tmp_path / "rows.jsonl", 40, day=[f"day {row % 3}" for row in range(40)])
    with pytest.raises(InputError, match=r"evaluation.folds must be at most the number of groups.*Got 5"):
        prepare(path, fold="1/5", group="day", test=0.0, validation=0.0)


def test_examples_have_the_same_fingerprint_in_a_fold_and_in_a_run_that_merges_the_validation_split(tmp_path):
    path = write_rows(tmp_path / "rows.jsonl", 40)
    fold, merged, divided = prepare(path, fold="1/2"), prepare(path, merge_validation=True), prepare(path)
    sources = {fold.source_fingerprint(split) for split in ("train", "validation", "test")}
    assert sources == {fold.pool.fingerprint} == {merged.source_fingerprint("train")}
    assert list(merged.train["id"]) == list(fold.pool.dataset["id"])
    assert merged.source_fingerprint("test") == divided.source_fingerprint("test")
    assert len({divided.source_fingerprint(split) for split in ("train", "validation", "test")}) == 3
    other_labels = write_rows(tmp_path / "other.jsonl", 40, labels=["b", "a"] * 20)
    assert prepare(other_labels, fold="1/2").pool.fingerprint not in sources
