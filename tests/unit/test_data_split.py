from collections import Counter

import numpy as np
import pytest

from hf_finetune.data.split import choose_subset, create_grouped_splits, create_splits, strata_of

FRACTIONS = {"validation": 0.1, "test": 0.2}


def assert_parts(rows, count):
    """Every row is in exactly one split."""
    assert sorted(np.concatenate(list(rows.values())).tolist()) == list(range(count))


def test_every_class_gets_its_share():
    strata = [0] * 100 + [1] * 50 + [2] * 4
    rows = create_splits(range(154), strata, FRACTIONS, seed=0)
    assert_parts(rows, 154)
    found = {split: Counter(strata[row] for row in chosen) for split, chosen in rows.items()}
    assert found["validation"] == {0: 10, 1: 5, 2: 1}
    assert found["test"] == {0: 20, 1: 10, 2: 1}
    assert found["train"] == {0: 70, 1: 35, 2: 2}


@pytest.mark.parametrize("count", [3, 4, 5, 9])
def test_train_keeps_an_example_whatever_the_fractions(count):
    rows = create_splits(range(count), [0] * count, {"validation": 0.45, "test": 0.5}, seed=0)
    assert_parts(rows, count)
    assert all(len(chosen) >= 1 for chosen in rows.values())


def test_a_stratum_that_is_too_small_stays_in_train():
    rows = create_splits(range(12), [0] * 10 + [1] * 2, FRACTIONS, seed=0)
    assert {10, 11} <= set(rows["train"].tolist())


def test_without_strata_all_rows_are_alike():
    rows = create_splits(range(100), None, FRACTIONS, seed=0)
    assert {split: len(chosen) for split, chosen in rows.items()} == {
        "train": 70,
        "validation": 10,
        "test": 20,
    }


def test_copies_stay_together():
    keys = [row // 2 for row in range(100)]
    rows = create_splits(keys, None, FRACTIONS, seed=0)
    places = {split: {keys[row] for row in chosen} for split, chosen in rows.items()}
    assert not places["train"] & places["validation"]
    assert not places["train"] & places["test"]
    assert len(rows["test"]) == 20


def test_the_seed_decides():
    first, again, other = (create_splits(range(50), None, FRACTIONS, seed) for seed in (1, 1, 2))
    assert all(np.array_equal(first[split], again[split]) for split in first)
    assert not np.array_equal(first["test"], other["test"])


def test_no_group_is_on_both_sides():
    groups = [f"g{row % 10}" for row in range(200)]
    strata = [row % 3 for row in range(200)]
    for kinds in (None, strata):
        rows = create_grouped_splits(groups, kinds, FRACTIONS, seed=0)
        assert_parts(rows, 200)
        places = {split: {groups[row] for row in chosen} for split, chosen in rows.items()}
        assert {split: len(found) for split, found in places.items()} == {
            "train": 7,
            "validation": 1,
            "test": 2,
        }
        assert sum(len(found) for found in places.values()) == len(set.union(*places.values()))


def test_the_smallest_number_of_groups_is_enough():
    rows = create_grouped_splits(["a", "a", "b", "c"], None, {"validation": 0.45, "test": 0.45}, seed=0)
    assert_parts(rows, 4)
    assert all(len(chosen) >= 1 for chosen in rows.values())


def test_unequal_groups_come_near_to_the_fraction():
    groups = ["big"] * 60 + [f"small{row // 10}" for row in range(40)]
    rows = create_grouped_splits(groups, None, {"test": 0.1}, seed=0)
    assert len(rows["test"]) == 10


def test_train_keeps_a_class_that_only_one_group_has():
    groups = [f"g{row // 10}" for row in range(60)]
    strata = [1 if group == "g3" else 0 for group in groups]
    for seed in range(10):
        rows = create_grouped_splits(groups, strata, {"test": 1 / 6}, seed)
        assert 1 in {strata[row] for row in rows["train"]}


def test_groups_spread_the_classes_as_evenly_as_they_can():
    groups = [f"g{row // 10}" for row in range(120)]
    strata = [int(group[1:]) % 2 for group in groups]  # each group is of one class
    rows = create_grouped_splits(groups, strata, {"test": 1 / 3}, seed=0)
    assert Counter(strata[row] for row in rows["test"]) == {0: 20, 1: 20}


def test_the_stratum_of_several_classes_is_the_rarest():
    assert strata_of([[0, 1], [0], [], [0, 2], [2]]) == [1, 0, -1, 2, 2]
    assert strata_of([3, 1]) == [3, 1]


def test_a_subset_has_a_share_of_every_class():
    strata = [0] * 90 + [1] * 9 + [2]
    rows = choose_subset(strata, 100, 20, seed=0)
    assert Counter(strata[row] for row in rows) == {0: 17, 1: 2, 2: 1}
    assert rows.tolist() != list(range(20))
    assert rows.tolist() == sorted(set(rows.tolist()))


def test_a_subset_below_the_number_of_classes_and_above_the_number_of_rows():
    strata = list(range(10)) * 2
    rows = choose_subset(strata, 20, 4, seed=0)
    assert len({strata[row] for row in rows}) == 4
    assert choose_subset(strata, 20, 50, seed=0).tolist() == list(range(20))


def test_a_subset_without_strata():
    rows, again, other = (choose_subset(None, 100, 10, seed).tolist() for seed in (0, 0, 1))
    assert rows == again
    assert rows != other
    assert len(set(rows)) == 10
