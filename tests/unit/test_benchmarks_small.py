"""The small data sets: their splits, their runs, and their page."""

import collections
import csv
import os
import sys
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest

sys.path.append(str(Path(__file__).parents[2]))

from benchmarks.inputs import LITE0, MINILM
from benchmarks.kit.results import pack
from benchmarks.rows import read_rows, write_rows
from benchmarks.small import measure, sets
from benchmarks.small.__main__ import PAGE, RESULTS, main
from benchmarks.small.measure import DEFAULTS, SETTINGS, Row
from benchmarks.small.page import render
from benchmarks.small.sets import SETS, SmallSet, make
from hf_finetune.recipe.load import load_recipe

pytestmark = pytest.mark.slow

OTHERS = [setting for setting in SETTINGS[LITE0] if setting != DEFAULTS]


def row(name="food", setting=DEFAULTS, seed=0, right=(1, 1, 1, 0), features=(1, 1, 0, 0), **given):
    values = {"start": 0.5, "start_loss": 1.0, "trained": 0.75, "trained_loss": 0.5, "seconds": 1.5, **given}
    return Row(
        name=name,
        setting=setting,
        seed=seed,
        **values,
        training=20,
        validation=4,
        right=pack(np.array(right)),
        features_right=pack(np.array(features)),
        examples=len(right),
    )


def texts(count, label):
    return {sha256(f"{label}{number}".encode()).hexdigest(): f"{label}, {number}" for number in range(count)}


def known_set(monkeypatch, found):
    monkeypatch.setitem(SETS, "known", SmallSet("", lambda folder: found, "text/reviews-csv", MINILM))


def read(path):
    with path.open(encoding="utf-8", newline="") as file:
        return [(each["id"], each["text"], each["label"]) for each in csv.DictReader(file)]


def test_a_share_of_each_class_is_held_out_and_small_classes_are_excluded(monkeypatch, tmp_path):
    found = {"few": texts(14, "few"), "many": texts(100, "many"), "some": texts(20, "some")}
    known_set(monkeypatch, found)
    folder = make("known", tmp_path)
    train, test = (read(folder / f"{split}.csv") for split in ("train", "test"))
    assert collections.Counter(label for *_, label in test) == {"many": 9, "some": 3}
    assert collections.Counter(label for *_, label in train) == {"many": 51, "some": 17}
    digests = {text: digest for examples in found.values() for digest, text in examples.items()}
    assert all(digests[text].startswith(id) for id, text, _ in train + test)
    last = max(id for id, _, label in test if label == "some")
    assert last < min(id for id, _, label in train if label == "some")
    assert not {text for _, text, _ in train} & {text for _, text, _ in test}


def test_a_set_that_is_there_is_taken_as_it_is(monkeypatch, tmp_path):
    known_set(monkeypatch, {"some": texts(20, "some")})
    folder = make("known", tmp_path)
    monkeypatch.setitem(SETS, "known", replace(SETS["known"], read=lambda folder: pytest.fail("read again")))
    assert make("known", tmp_path) == folder and len(read(folder / "train.csv")) == 17


def test_images_are_in_class_folders_without_duplicates_or_links(monkeypatch, tmp_path):
    inner = tmp_path / "packages" / sets.CLIP_ART[0] / sets.CLIP_ART[2] / "food"
    (inner / "fruit" / "red").mkdir(parents=True)
    for number in range(20):
        (inner / "fruit" / "red" / f"{number}.png").write_bytes(b"%d" % number)
    (inner / "fruit" / "again.png").write_bytes(b"3")
    (inner / "fruit" / "link.png").symlink_to("red/4.png")
    (inner / "sweets").symlink_to("fruit")
    folder = make("food", tmp_path)
    files = {path for path in folder.rglob("*") if path.is_file()}
    assert len(files) == 20 and {path.read_bytes() for path in files} == {b"%d" % n for n in range(20)}
    split = collections.Counter(path.relative_to(folder).parts[:2] for path in files)
    assert split == {("test", "fruit"): 3, ("train", "fruit"): 17}


def test_sayings_of_usual_length_are_taken_on_one_line(monkeypatch, tmp_path):
    inner = tmp_path / "packages" / sets.SAYINGS[0] / sets.SAYINGS[2]
    inner.mkdir(parents=True)
    for topic in sets.TOPICS:
        long = "\n%\n".join(f"{topic} {number}\n\t{'word ' * 10}" for number in range(20))
        (inner / topic).write_text(f"short\n%\n{long}\n%\n{'x' * 500}\n%\n", encoding="utf-8")
    folder = make("sayings", tmp_path)
    rows = read(folder / "train.csv") + read(folder / "test.csv")
    assert len(rows) == 20 * len(sets.TOPICS)
    assert all(text.startswith(label) and "\n" not in text and "  " not in text for _, text, label in rows)


@pytest.mark.parametrize(
    ("category", "kind"),
    [("Recipes for dessert", "dessert"), ("Soup recipes", "soup"), ("Beverages", "beverage")],
)
def test_a_kind_of_dish_is_what_remains_without_the_word_recipes(category, kind):
    assert sets._kind_of_dish(category) == kind


def test_a_package_that_cannot_be_downloaded_is_reported_with_its_path(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(sets.AssetError, match=r"fortunes 1:1\.99\.1-7\.3 could not be downloaded") as caught:
        make("sayings", tmp_path)
    assert str(tmp_path / "packages" / "fortunes") in str(caught.value)
    assert not (tmp_path / "sayings").exists()


@pytest.mark.parametrize(
    ("name", "setting"), [(name, setting) for name, of in SETS.items() for setting in SETTINGS[of.checkpoint]]
)
def test_every_setting_is_a_recipe(name, setting):
    of = SETS[name]
    recipe = load_recipe(of.route, ["data.path=.", *SETTINGS[of.checkpoint][setting]])
    assert len(recipe.stages) == 2
    if setting != DEFAULTS:
        assert recipe != load_recipe(of.route, ["data.path=."])


def test_rows_are_read_as_they_were_written(tmp_path):
    rows = [row(), row(seed=1)]
    write_rows(rows, tmp_path / "small.json")
    assert read_rows(Row, tmp_path / "small.json") == rows
    assert read_rows(Row, tmp_path / "none.json") == []


def test_the_page_has_the_defaults_on_the_test_splits_and_every_setting_on_the_validation_splits():
    rows = [row(seed=0), row(seed=1, right=(1, 1, 1, 1)), row("nature", right=(0, 0), features=(0, 0))]
    rows += [row(setting=setting, trained=0.25, trained_loss=1.5, seconds=3.0) for setting in OTHERS]
    rows += [row("nature", setting) for setting in OTHERS]
    rows += [row("stamps")]  # not measured completely
    text = render(rows)
    assert "| setting | *food* (1) | *nature* (1) | mean | kept | loss | time |" in text
    assert "| *food* | 20 | 4 | 4 |" in text.replace(SETS["food"].about + " | ", "")
    assert "| *food* | 0.875 | 0.500 | +0.375 |" in text
    assert "| *nature* | 0.000 | 0.000 | +0.000 | +0.000 to +0.000 | not significant |" in text
    assert "| defaults | +0.250 | +0.250 | +0.250 | 0.750 | -0.500 | 1.00 |" in text
    assert "| `train: all, lr: 3e-4` | -0.250 | +0.250 | +0.000 | 0.625 | +0.000 | 1.50 |" in text
    assert "*sayings*" not in text and MINILM.name not in text.split("## Validation splits")[1]


def test_the_page_in_the_documents_is_that_of_the_rows():
    rows = read_rows(Row, RESULTS)
    assert PAGE.exists() == RESULTS.exists()
    assert not rows or PAGE.read_text(encoding="utf-8") == render(rows)
    assert all(each.training + each.validation + each.examples < 500 for each in rows)


@pytest.fixture
def asked(monkeypatch):
    """Replace runs by instant ones, and return the list of requested runs."""
    asked = []

    def run_child(module, work, *, threads=None):
        assert module == "small_run"
        asked.append((work["recipe"], tuple(work["overrides"]), tuple(work["cores"]), threads))
        values = {"accuracy": 0.5, "loss": 1.0}
        right = [True, False]
        return {
            "seconds": 1.23,
            "start": values,
            "trained": values,
            "training": 20,
            "validation": 4,
            "right": right,
            "features_right": right,
        }

    monkeypatch.setattr(measure, "run_child", run_child)
    monkeypatch.setattr(measure, "make", lambda name: Path("/sets", name))
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 1}, raising=False)
    return asked


def test_each_setting_and_seed_runs_once(tmp_path, asked):
    files = ("--results", str(tmp_path / "small.json"), "--page", str(tmp_path / "small.md"))
    assert main(["measure", "food", "--seeds", "2", "--lanes", "2", *files]) == 0
    settings = len(SETTINGS[LITE0])
    assert len(asked) == 2 * settings == len(read_rows(Row, tmp_path / "small.json"))
    overrides = {overrides for _, overrides, *_ in asked}
    assert ("model.path=" + str(LITE0), "data.path=/sets/food", "seed=1") in overrides
    assert {(recipe, threads) for recipe, _, _, threads in asked} == {("image/vit-folder", 1)}
    assert "*food*" in (tmp_path / "small.md").read_text(encoding="utf-8")
    assert main(["measure", "food", "--seeds", "2", *files]) == 0 and len(asked) == 2 * settings


def test_an_unknown_dataset_is_reported(capsys):
    assert main(["page", "none"]) == 2
    assert capsys.readouterr().err == f"Unknown: none. Known: {', '.join(SETS)}.\n"


@pytest.mark.parametrize("lanes", ["0", "3"])
def test_each_lane_needs_a_core(asked, capsys, lanes):
    assert main(["measure", "--lanes", lanes]) == 2
    assert capsys.readouterr().err == f"--lanes must be from 1 to 2, the number of cores. Got {lanes}.\n"
    assert not asked
