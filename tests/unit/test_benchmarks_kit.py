"""The kit's benchmark: its data, its comparisons, and its page."""

import collections
import os
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as parquet
import pytest

sys.path.append(str(Path(__file__).parents[2]))

from benchmarks.inputs import DISHES, ROOT
from benchmarks.kit import data, measure
from benchmarks.kit.__main__ import PAGE, RESULTS, main
from benchmarks.kit.compare import compare
from benchmarks.kit.groups import GROUPS, Group, recipe_of
from benchmarks.kit.measure import _equal_classes, current, digest_of
from benchmarks.kit.page import render
from benchmarks.kit.results import Cost, Effect, Results, digest, pack, read_results, unpack, write_results
from benchmarks.lanes import shares
from hf_finetune.recipe.load import parse_recipe

pytestmark = pytest.mark.slow


def labels(folder, split):
    return collections.Counter(parquet.read_table(f"{folder}/{split}.parquet")["label"].to_pylist())


@pytest.fixture
def texts(monkeypatch):
    texts = {label: [f"{label} {number}" for number in range(3000)] for label in ("0", "1")}
    monkeypatch.setattr(data, "_by_class", lambda path: texts)


def effect(setting, seed, right, group="heads-dishes", **given):
    right = np.asarray(right)
    return Effect(group, setting, seed, "d", float(right.mean()), pack(right), (), len(right), **given)


def test_class_sizes_of_the_long_tail_decrease_by_a_constant_factor(tmp_path):
    one, other = (data.long_tail(tmp_path / str(seed), seed) for seed in (0, 1))
    sizes = sorted(labels(one, "train").values(), reverse=True)
    assert len(sizes) == 81
    assert (sizes[0], sizes[40], sizes[-1]) == (8, 3, 1)
    assert sizes == sorted(labels(other, "train").values(), reverse=True)
    assert labels(one, "train") != labels(other, "train")
    assert labels(one, "test") == labels(other, "test") == labels(DISHES, "test")


def test_training_reviews_depend_on_the_seed_and_test_reviews_do_not(tmp_path, texts):
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


def test_the_target_domain_has_no_labels_and_no_metrics(tmp_path, texts):
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


def test_further_tasks_are_added_to_that_of_the_base():
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


def test_a_digest_depends_on_the_recipe_and_not_on_its_path():
    recipe = {"model": {"path": str(ROOT / "assets")}, "seed": 0}
    assert digest(recipe) != digest({**recipe, "seed": 1})
    assert digest(recipe) == digest({**recipe, "model": {"path": "/assets"}})


@pytest.mark.parametrize("count", [1, 7, 8, 137])
def test_correct_examples_survive_saving_and_loading(count):
    right = np.random.default_rng(count).random(count) < 0.5
    assert unpack(pack(right), count).tolist() == right.astype(float).tolist()


def test_rows_are_read_as_they_were_written(tmp_path):
    rows = Results(
        (effect("a", 0, [1, 0, 1]), replace(effect("a", 1, [1, 1, 1]), weights=(0.5, 0.5, 2.0))),
        (Cost("heads-dishes", "a", 0, "d", "2 CPU cores", 1.5, None),),
    )
    write_results(rows, tmp_path / "kit.json")
    assert read_results(tmp_path / "kit.json") == rows
    assert read_results(tmp_path / "none.json") == Results()


def test_a_setting_that_is_right_where_the_other_is_not_is_better():
    others = [effect("a", seed, [1] * 60 + [0] * 40) for seed in range(3)]
    rows = [effect("b", seed, [1] * 80 + [0] * 20) for seed in range(3)]
    found = compare(rows, others)
    assert (found.mean, found.difference) == pytest.approx((0.8, 0.2))
    # 100 examples, 20 of which count 1: the deviation of their mean is sqrt(0.2 x 0.8 / 100) = 0.04
    assert found.interval == pytest.approx((0.2 - 1.96 * 0.04, 0.2 + 1.96 * 0.04), abs=0.01)
    assert found.verdict == "better" and compare(others, rows).verdict == "worse"
    rows[0] = effect("b", 0, [1] * 90 + [0] * 10)
    assert compare(rows, others) == compare(rows[::-1], others)
    assert compare(others, others).verdict == "not significant"


def test_seeds_that_disagree_leave_the_difference_unseen():
    others = [effect("a", seed, [1] * 50 + [0] * 50) for seed in range(2)]
    rows = [effect("b", 0, [1] * 100), effect("b", 1, [1] * 20 + [0] * 80)]
    assert compare(rows, others).difference == pytest.approx(0.1)
    assert compare(rows, others).verdict == "not significant"


def test_examples_count_by_their_weights():
    weights = (0.5,) * 60 + (2.0,) * 15
    others = [replace(effect("a", 0, [1] * 60 + [0] * 15), weights=weights, value=0.5)]
    rows = [replace(effect("b", 0, [1] * 75), weights=weights, value=1.0)]
    found = compare(rows, others)
    assert found.difference == 0.5
    assert sum(found.interval) / 2 == pytest.approx(15 * 2.0 / 75, abs=0.02)


def test_each_class_weighs_as_much_as_every_other_one():
    assert _equal_classes(np.array([3, 3, 3, 7])) == pytest.approx((2 / 3, 2 / 3, 2 / 3, 2.0), abs=1e-6)
    assert _equal_classes(np.array([3, 7, 7, 3])) == ()


def test_the_page_has_a_row_with_the_time_of_each_setting():
    group = "features-reviews"
    first, second, third = GROUPS[group].settings
    effects = [effect(first, seed, [1] * 5 + [0] * 5, group) for seed in range(2)]
    effects += [effect(setting, seed, [1] * 10, group) for setting in (second, third) for seed in range(2)]
    costs = [
        Cost(group, setting, seed, "d", "2 CPU cores", seconds + seed, peak)
        for setting, seconds, peak in ((first, 10.0, 2**30), (second, 15.25, 2**29))
        for seed in range(2)
    ]
    costs.append(Cost(group, third, 0, "d", "2 CPU cores", 20.0, None))  # against 10.0 with the same seed
    costs += [Cost(group, third, 1, "d", "64 CPU cores", 1.0, None)]
    costs += [Cost(group, third, 2, "d", "2 CPU cores", 1.0, None)]  # without a counterpart
    text = render(Results(tuple(effects), tuple(costs)))
    lines = [line for line in text.splitlines() if line.startswith("| `")]
    assert lines[0] == f"| `{first}` | 0.500 |  |  | reference | 10.5 s | 1,024 MiB |"
    assert lines[1].startswith(f"| `{second}` | 1.000 | +0.500 | +0.")
    assert lines[1].endswith("| better | 1.50 | 0.50 |") and lines[2].endswith("| better | 2.00 |  |")
    assert (
        "1,000 reviews; stage: head; metric: accuracy; 2 seeds. Time and memory: 2 seeds, 2 CPU cores.\n"
        in text
    )
    words = f"`{second}` (reviews, +0.500), `{third}` (reviews, +0.500)"
    assert (
        f"## Summary\n\n- *better*: {words}.\n- *worse*: none.\n- *not significant*: the other 0 of 2.\n"
        in text
    )
    assert "1,000 reviews" not in render(
        Results(tuple(effects[:-1]), tuple(costs))
    )  # not measured completely


@pytest.mark.slow
def test_the_page_in_the_documents_is_that_of_the_rows():
    assert PAGE.read_text(encoding="utf-8") == render(read_results(RESULTS))


def test_the_rows_of_the_page_are_of_the_recipes(texts):
    results = read_results(RESULTS)
    for row in (*results.effects, *results.costs):
        assert digest_of(row.group, row.setting, row.seed) == row.digest
    assert str(ROOT) not in RESULTS.read_text(encoding="utf-8")


def test_rows_of_removed_settings_are_omitted(monkeypatch):
    run = ("heads-dishes", "model: {head: linear}")
    kept = replace(effect("model: {head: linear}", 1, [1]), digest=digest_of(*run, 1))
    cost = Cost(*run, 0, digest_of(*run, 0), "2 CPU cores", 1.5, None)
    old = [
        effect("model: {head: linear}", 0, [1]),
        effect("model: {head: round}", 0, [1]),
        effect("x", 0, [1], group="gone"),
    ]
    rows = Results((kept, *old), (cost, replace(cost, digest="d")))
    assert current(rows) == Results((kept,), (cost,))
    monkeypatch.setattr(data, "TRAIN", 10)
    assert current(rows) == Results()  # other examples


def test_an_unknown_group_is_reported(capsys):
    assert main(["page", "none"]) == 2
    assert "Unknown: none. Known: balance-dishes, " in capsys.readouterr().err


def found(seconds):
    """Return the answer of a run with two of three test examples correct."""
    test = {"accuracy": 2 / 3, "balanced_accuracy": 0.75}
    return {"seconds": seconds, "peak_bytes": 2**30, "test": test, "labels": [0, 0, 1], "right": [1, 0, 1]}


@pytest.fixture
def asked(monkeypatch):
    """Replace runs by instant ones, and return the list of requested runs."""
    asked = []

    def run_child(module, work, *, threads=None):
        assert module == "judged"
        asked.append((work["recipe"], work["task"], tuple(work["cores"]), threads))
        return found(float(len(asked)))

    monkeypatch.setattr(measure, "run_child", run_child)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {1, 2, 5, 7}, raising=False)
    return asked


def measuring(tmp_path, *options):
    files = ("--results", str(tmp_path / "kit.json"), "--page", str(tmp_path / "kit.md"))
    assert main(["measure", *files, *options]) == 0
    return read_results(tmp_path / "kit.json")


def test_each_setting_and_seed_runs_once_and_again_only_on_request(tmp_path, asked, texts):
    rows = measuring(tmp_path, "features-reviews", "--seeds", "2")
    assert len(asked) == len(rows.effects) == len(rows.costs) == 6
    assert {recipe["seed"] for recipe, *_ in asked} == {0, 1}
    assert all(row.value == 2 / 3 and row.right == pack(np.array([1, 0, 1])) for row in rows.effects)
    assert {row.seconds for row in rows.costs} == {1.0, 2.0, 3.0, 4.0, 5.0, 6.0}
    assert current(rows) == rows and {row.machine for row in rows.costs} == {"4 CPU cores"}
    assert "1,000 reviews; stage: head; metric: accuracy; 2 seeds" in (tmp_path / "kit.md").read_text(
        encoding="utf-8"
    )
    assert measuring(tmp_path, "features-reviews", "--seeds", "2") == rows and len(asked) == 6
    again = measuring(tmp_path, "--again", "--seeds", "1", "features-reviews")
    assert len(asked) == 9 and len(again.effects) == len(again.costs) == 6
    assert {row.seconds for row in again.costs if row.seed == 0} == {7.0, 8.0, 9.0}


def test_runs_at_a_time_have_cores_of_their_own_and_as_many_each(tmp_path, asked, texts):
    rows = measuring(tmp_path, "balance-reviews", "--seeds", "1", "--lanes", "2")
    assert {(cores, threads) for *_, cores, threads in asked} <= {((1, 2), 2), ((5, 7), 2)}
    assert {row.machine for row in rows.costs} == {"2 CPU cores per run, 2 runs in parallel"}
    assert shares(3) == [[1], [2], [5]] and shares(1) == [[1, 2, 5, 7]]
    # two test examples are of one class and one of the other
    assert {(row.value, row.weights) for row in rows.effects} == {(0.75, (0.75, 0.75, 1.5))}


@pytest.mark.parametrize("lanes", ["0", "5"])
def test_each_lane_needs_a_core(asked, capsys, lanes):
    assert main(["measure", "--lanes", lanes]) == 2
    assert capsys.readouterr().err == f"--lanes must be from 1 to 4, the number of cores. Got {lanes}.\n"
    assert not asked


@pytest.mark.parametrize(("group", "task"), [("tasks-dishes", "dish"), ("tasks-reviews", "film")])
def test_of_several_tasks_the_one_of_the_base_is_evaluated(tmp_path, asked, texts, group, task):
    measuring(tmp_path, group, "--seeds", "1")
    assert sorted(map(str, {task for _, task, *_ in asked})) == ["None", task]
    assert all(
        list(recipe.get("tasks", {})) in ([], [task, "style"], [task, "product"]) for recipe, *_ in asked
    )


def test_product_reviews_are_next_to_the_movie_reviews(tmp_path, texts):
    folder = data.reviews_and_products(tmp_path / "data", 0)
    assert labels(f"{folder}-products", "train") == {"0": 250, "1": 250}
    assert labels(folder, "train") == {"0": 500, "1": 500} and labels(folder, "test") == {"0": 500, "1": 500}
