"""The kit's benchmark: what it trains on, what it compares, and its page."""

import collections
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as parquet
import pytest

sys.path.append(str(Path(__file__).parents[2]))

from benchmarks.inputs import DISHES, ROOT
from benchmarks.kit import data
from benchmarks.kit.__main__ import PAGE, RESULTS, main
from benchmarks.kit.compare import compare
from benchmarks.kit.groups import GROUPS, Group, recipe_of
from benchmarks.kit.measure import _equal_classes, current
from benchmarks.kit.page import render
from benchmarks.kit.results import Cost, Effect, Results, digest, pack, read_results, unpack, write_results
from hf_finetune.recipe import parse_recipe


def labels(folder, split):
    return collections.Counter(parquet.read_table(f"{folder}/{split}.parquet")["label"].to_pylist())


@pytest.fixture
def texts(monkeypatch):
    texts = {label: [f"{label} {number}" for number in range(3000)] for label in ("0", "1")}
    monkeypatch.setattr(data, "_by_class", lambda path: texts)


def effect(setting, seed, right, group="heads-dishes", **given):
    right = np.asarray(right)
    return Effect(group, setting, seed, "d", float(right.mean()), pack(right), (), len(right), **given)


def test_the_long_tail_falls_by_equal_factors_from_class_to_class(tmp_path):
    one, other = (data.long_tail(tmp_path / str(seed), seed) for seed in (0, 1))
    sizes = sorted(labels(one, "train").values(), reverse=True)
    assert len(sizes) == 81
    assert (sizes[0], sizes[40], sizes[-1]) == (8, 3, 1)
    assert sizes == sorted(labels(other, "train").values(), reverse=True)
    assert labels(one, "train") != labels(other, "train")
    assert labels(one, "test") == labels(other, "test") == labels(DISHES, "test")


def test_reviews_to_train_on_are_drawn_by_the_seed_and_those_to_judge_by_are_the_same(tmp_path, texts):
    one, other = (data.skewed_reviews(tmp_path / str(seed), seed) for seed in (0, 1))
    assert labels(one, "train") == {"0": 200, "1": 1800}
    assert labels(one, "test") == {"0": 500, "1": 500}
    of = [
        [
            set(parquet.read_table(f"{folder}/{split}.parquet")["text"].to_pylist())
            for split in ("train", "test")
        ]
        for folder in (one, other)
    ]
    assert of[0][0] != of[1][0] and of[0][1] == of[1][1]
    assert not of[0][0] & of[0][1] and not of[1][0] & of[1][1]


@pytest.mark.parametrize("name", GROUPS)
def test_every_setting_is_a_recipe_and_no_two_are_the_same(tmp_path, texts, name):
    group = GROUPS[name]
    path = group.data(tmp_path / "data", 0)
    recipes = [recipe_of(group, setting, path, 0) for setting in group.settings]
    parsed = [parse_recipe(recipe) for recipe in recipes]
    assert len({repr(recipe) for recipe in parsed}) == len(group.settings) > 1
    assert all(recipe.seed == 0 for recipe in parsed)
    assert all("{data}" not in repr(recipe) and path in repr(recipe) for recipe in parsed)


def test_changes_go_to_every_stage_or_to_the_place_that_is_named():
    base = {"data": {}, "stages": [{"lr": 1}, {"lr": 2}]}
    group = Group("", "", data.dishes, base, {"a": {"stage.balance": "focal", "model.head": "cosine"}})
    assert recipe_of(group, "a", "p", 3) == {
        "data": {"path": "p"},
        "model": {"head": "cosine"},
        "stages": [{"lr": 1, "balance": "focal"}, {"lr": 2, "balance": "focal"}],
        "seed": 3,
    }
    assert base == {"data": {}, "stages": [{"lr": 1}, {"lr": 2}]}


def test_what_is_adapted_to_has_no_labels_and_is_not_judged(tmp_path, texts):
    for make, column, other in ((data.other_style, "image", "style"), (data.other_reviews, "text", None)):
        folder = make(tmp_path / make.__name__, 0)
        target = parquet.read_table(f"{folder}-unlabelled/train.parquet")
        train, test = (parquet.read_table(f"{folder}/{split}.parquet") for split in ("train", "test"))
        assert target.column_names == [column]
        kept, judged = ({str(value) for value in table[column].to_pylist()} for table in (target, test))
        assert kept and judged and not kept & judged
        if other:
            assert set(test[other].to_pylist()) == {"fluent"}
            assert "fluent" not in set(train[other].to_pylist())


def test_tasks_stand_beside_that_of_the_base():
    base = {"task": "t", "data": {"columns": {}, "split": {}, "image_size": 8}, "stages": []}
    group = Group("", "", data.dishes, base, {"a": {"tasks": {"style": {"data": "{data}/x"}}}})
    assert recipe_of(group, "a", "p", 0) == {
        "task": "multi-task",
        "data": {"image_size": 8},
        "stages": [],
        "tasks": {
            "dish": {"task": "t", "data": {"path": "p", "columns": {}, "split": {}}},
            "style": {"data": "p/x"},
        },
        "seed": 0,
    }


def test_a_digest_knows_the_recipe_and_not_where_it_lies():
    recipe = {"model": {"path": str(ROOT / "assets")}, "seed": 0}
    assert digest(recipe) != digest({**recipe, "seed": 1})
    assert digest(recipe) == digest({**recipe, "model": {"path": "/assets"}})


@pytest.mark.parametrize("count", [1, 7, 8, 137])
def test_which_examples_are_right_is_read_as_it_was_written(count):
    right = np.random.default_rng(count).random(count) < 0.5
    assert unpack(pack(right), count).tolist() == right.astype(float).tolist()


def test_rows_are_read_as_they_were_written(tmp_path):
    rows = Results(
        (effect("a", 0, [1, 0, 1]), replace(effect("a", 1, [1, 1, 1]), weights=(0.5, 0.5, 2.0))),
        (Cost("heads-dishes", "a", 0, "d", 1.5, None),),
        "2 CPU cores",
    )
    write_results(rows, tmp_path / "kit.json")
    assert read_results(tmp_path / "kit.json") == rows
    assert read_results(tmp_path / "none.json") == Results()


def test_a_setting_that_is_right_where_the_other_is_not_is_better():
    others = [effect("a", seed, [1] * 60 + [0] * 40) for seed in range(3)]
    rows = [effect("b", seed, [1] * 80 + [0] * 20) for seed in range(3)]
    found = compare(rows, others)
    assert (found.mean, found.difference) == pytest.approx((0.8, 0.2))
    # 100 examples of which 20 count 1: the deviation of their mean is sqrt(0.2 x 0.8 / 100) = 0.04
    assert found.interval == pytest.approx((0.2 - 1.96 * 0.04, 0.2 + 1.96 * 0.04), abs=0.01)
    assert found.verdict == "better" and compare(others, rows).verdict == "worse"
    assert compare(others, others).verdict == "no difference seen"


def test_seeds_that_disagree_leave_the_difference_unseen():
    others = [effect("a", seed, [1] * 50 + [0] * 50) for seed in range(2)]
    rows = [effect("b", 0, [1] * 100), effect("b", 1, [1] * 20 + [0] * 80)]
    assert compare(rows, others).difference == pytest.approx(0.1)
    assert compare(rows, others).verdict == "no difference seen"


def test_examples_count_as_much_as_their_weights_say():
    weights = (0.5,) * 60 + (2.0,) * 15
    others = [replace(effect("a", 0, [1] * 60 + [0] * 15), weights=weights, value=0.5)]
    rows = [replace(effect("b", 0, [1] * 75), weights=weights, value=1.0)]
    found = compare(rows, others)
    assert found.difference == 0.5
    assert sum(found.interval) / 2 == pytest.approx(15 * 2.0 / 75, abs=0.02)


def test_each_class_weighs_as_much_as_every_other_one():
    assert _equal_classes(np.array([3, 3, 3, 7])) == pytest.approx((2 / 3, 2 / 3, 2 / 3, 2.0), abs=1e-6)
    assert _equal_classes(np.array([3, 7, 7, 3])) == ()


def test_the_page_has_a_row_for_each_setting_and_what_it_costs():
    effects = [effect("head: linear", seed, [1] * 5 + [0] * 5) for seed in range(2)]
    effects += [effect("head: cosine, lr: 0.03", seed, [1] * 10) for seed in range(2)]
    costs = [
        Cost("heads-dishes", "head: linear", 0, "d", 10.0, 2**30),
        Cost("heads-dishes", "head: cosine, lr: 0.03", 0, "d", 15.0, 2**29),
    ]
    text = render(Results(tuple(effects), tuple(costs), "2 CPU cores"))
    lines = [line for line in text.splitlines() if line.startswith("| `")]
    assert lines[0] == "| `head: linear` | 0.500 |  |  |  | 10.0 s | 1,024 MiB |"
    assert lines[1].startswith("| `head: cosine, lr: 0.03` | 1.000 | +0.500 | +0.")
    assert lines[1].endswith("| better | 1.50 | 0.50 |")
    assert "Dishes; the head: accuracy, 2 seeds" in text and "measured on 2 CPU cores" in text


def test_the_page_in_the_documents_is_that_of_the_rows_and_these_are_of_the_recipes(tmp_path, texts):
    results = read_results(RESULTS)
    assert PAGE.read_text(encoding="utf-8") == render(results)
    for row in (*results.effects, *results.costs):
        group = GROUPS[row.group]
        seed = row.seed if isinstance(row, Effect) else 0
        assert digest(recipe_of(group, row.setting, "", seed)) == row.digest
    assert str(ROOT) not in RESULTS.read_text(encoding="utf-8")


def test_rows_of_what_is_no_longer_compared_are_left_out():
    made = digest(recipe_of(GROUPS["heads-dishes"], "head: linear", "", 1))
    kept = replace(effect("head: linear", 1, [1]), digest=made)
    cost = Cost(
        "heads-dishes",
        "head: linear",
        0,
        digest(recipe_of(GROUPS["heads-dishes"], "head: linear", "", 0)),
        1.5,
        None,
    )
    old = [effect("head: linear", 0, [1]), effect("head: round", 0, [1]), effect("x", 0, [1], group="gone")]
    rows = Results((kept, *old), (cost, replace(cost, digest="d")))
    assert current(rows) == Results((kept,), (cost,))


def test_an_unknown_group_is_told(capsys):
    assert main(["page", "none"]) == 2
    assert "Unknown: none. Known: balance-dishes, " in capsys.readouterr().err


def test_what_is_known_is_not_run_again(tmp_path, monkeypatch):
    from benchmarks.kit import __main__ as command

    asked = []
    monkeypatch.setattr(
        command,
        "effects",
        lambda name, *rest: asked.append((name, rest[0])) or iter([effect("head: linear", 0, [1])]),
    )
    path = tmp_path / "kit.json"
    for _ in range(2):
        assert (
            main(
                [
                    "effects",
                    "heads-dishes",
                    "--seeds",
                    "1",
                    "--results",
                    str(path),
                    "--page",
                    str(tmp_path / "kit.md"),
                ]
            )
            == 0
        )
    assert asked == [("heads-dishes", 1)] * 2
    assert len(json.loads(path.read_text(encoding="utf-8"))["effects"]) == 1
