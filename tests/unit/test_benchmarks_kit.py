"""What the kit's benchmark trains on, and its table."""

import collections
import sys
from pathlib import Path

import pyarrow.parquet as parquet
import pytest

sys.path.append(str(Path(__file__).parents[2]))

from benchmarks import kit
from hf_finetune.recipe import parse_recipe


def labels(folder, split):
    return collections.Counter(parquet.read_table(f"{folder}/{split}.parquet")["label"].to_pylist())


def test_the_long_tail_falls_by_equal_factors_from_class_to_class(tmp_path):
    one, other = (kit.long_tail(tmp_path / str(seed), seed) for seed in (0, 1))
    sizes = sorted(labels(one, "train").values(), reverse=True)
    assert len(sizes) == 81
    assert (sizes[0], sizes[40], sizes[-1]) == (8, 3, 1)
    assert sizes == sorted(labels(other, "train").values(), reverse=True)
    assert labels(one, "train") != labels(other, "train")
    assert labels(one, "test") == labels(other, "test") == labels(kit.DISHES, "test")


@pytest.mark.parametrize("option", kit.OPTIONS)
def test_every_setting_is_a_recipe_and_the_first_leaves_the_option_out(tmp_path, monkeypatch, option):
    texts = {label: [f"{label} {number}" for number in range(3000)] for label in ("0", "1")}
    monkeypatch.setattr(kit, "_reviews", lambda: texts)
    works = list(kit.OPTIONS[option](tmp_path, 0))
    for work, changes in works:
        parse_recipe({**work.recipe, "stages": [{**stage, **changes} for stage in work.recipe["stages"]]})
    assert len({work.data for work, _ in works}) == 2
    settings = [changes for _, changes in works[: len(works) // 2]]
    assert (
        settings[0]
        == {"balance": {"balance": {"method": "none"}}, "schedules": {"schedule": "constant"}}[option]
    )
    assert settings == [changes for _, changes in works[len(works) // 2 :]]


def test_reviews_to_train_on_are_skewed_and_those_to_judge_by_are_not(tmp_path, monkeypatch):
    texts = {label: [f"{label} {number}" for number in range(3000)] for label in ("0", "1")}
    monkeypatch.setattr(kit, "_reviews", lambda: texts)
    folder = kit.skewed_reviews(tmp_path, 0, positive=90, negative=10)
    assert labels(folder, "train") == {"0": 10, "1": 90}
    assert labels(folder, "test") == {"0": 500, "1": 500}


def test_the_table_gives_means_and_what_differs_seed_by_seed():
    def row(method, seed, value):
        metrics = {"balanced_accuracy": value}
        return kit.Row("balance", {"balance": {"method": method}}, "dishes", seed, metrics, 2.0)

    text = kit.table([row("none", 0, 0.5), row("focal", 0, 0.6), row("none", 1, 0.4), row("focal", 1, 0.7)])
    assert text.splitlines()[1:] == [
        '  0.450 (0.500 0.400) +0.000 (+0.000 +0.000) 2.0 s  {"balance": {"method": "none"}}',
        '  0.650 (0.600 0.700) +0.200 (+0.100 +0.300) 2.0 s  {"balance": {"method": "focal"}}',
    ]
