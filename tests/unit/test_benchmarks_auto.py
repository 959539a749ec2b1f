"""The datasets on which automatic searches are compared, the runs, and the page."""

import collections
import csv
import json
import os
import sys
from dataclasses import replace
from hashlib import sha256
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import ClassVar

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

sys.path.append(str(Path(__file__).parents[2]))

from benchmarks.auto import measure, sets
from benchmarks.auto.__main__ import PAGE, RESULTS, main
from benchmarks.auto.measure import AUTO, AUTOGLUON, CHOOSE, CONTENDERS, FEATURES, GRID, RECIPE, STOCK, Row
from benchmarks.auto.page import render
from benchmarks.auto.sets import SETS, make
from benchmarks.contenders.choose_run import h_score
from benchmarks.inputs import MINILM
from benchmarks.kit.results import pack
from benchmarks.rows import read_rows, write_rows
from hf_finetune.recipe.load import load_recipe

pytestmark = pytest.mark.slow


def row(contender=AUTO, name="food", seed=0, limit=60, right=(1, 1, 1, 0), setting="", seconds=50.0, **given):
    return Row(name, contender, setting, seed, limit, pack(np.array(right)), len(right), seconds, **given)


def whole_grid(**right):
    """Return rows of all settings of the grid: those of ``right``, in which _ is a space, and wrong ones."""
    given = {setting.replace("_", " "): values for setting, values in right.items()}
    return [
        row(GRID, limit=0, right=given.get(setting, (0, 0, 0, 0)), setting=setting)
        for setting in measure.grid_settings(SETS["food"])
    ]


def texts(count, label):
    return {sha256(f"{label}{number}".encode()).hexdigest(): f"{label}, {number}" for number in range(count)}


def read(path):
    with path.open(encoding="utf-8", newline="") as file:
        return [(each["id"], each["text"], each["label"]) for each in csv.DictReader(file)]


def known_set(monkeypatch, found):
    of = sets.AutoSet("", lambda: found, "text/reviews-csv", MINILM)
    monkeypatch.setitem(sets.SETS, "known", of)


def test_each_seed_holds_out_a_share_of_each_class(monkeypatch, tmp_path):
    found = {"few": texts(14, "few"), "many": texts(100, "many"), "some": texts(20, "some")}
    known_set(monkeypatch, found)
    tests = []
    for seed in (0, 1):
        folder = make("known", seed, tmp_path)
        train, test = (read(folder / f"{split}.csv") for split in ("train", "test"))
        assert collections.Counter(label for *_, label in test) == {"many": 18, "some": 6}
        assert collections.Counter(label for *_, label in train) == {"many": 42, "some": 14}
        assert not {text for _, text, _ in train} & {text for _, text, _ in test}
        tests.append({text for _, text, _ in test})
    assert tests[0] != tests[1]


def test_a_divided_set_that_exists_is_taken_as_it_is(monkeypatch, tmp_path):
    known_set(monkeypatch, {"some": texts(20, "some")})
    folder = make("known", 0, tmp_path)
    monkeypatch.setitem(SETS, "known", replace(SETS["known"], read=lambda: pytest.fail("read again")))
    assert make("known", 0, tmp_path) == folder and len(read(folder / "train.csv")) == 14


@pytest.mark.parametrize(("name", "classes"), [("dishes", 81), ("digits", 10)])
def test_images_are_class_folders(name, classes, tmp_path):
    folder = make(name, 0, tmp_path)
    assert {path.name for path in folder.iterdir()} == {"train", "test"}
    for split in folder.iterdir():
        assert len(list(split.iterdir())) == classes
        for path in split.glob("*/*"):
            with Image.open(path) as image:
                assert path.suffix == f".{image.format.lower()}"


def test_every_setting_of_the_grid_is_a_recipe():
    for of in SETS.values():
        settings = measure._settings(of, GRID, 60)
        for setting, limit in settings:
            module, work = measure._work(of, GRID, setting, 0, limit, Path())
            recipe = load_recipe(work["recipe"], work["overrides"])
            assert module == "recipe_run"
            assert (recipe.strategy is not None) == setting.endswith("features")
        trained = {*measure.CHECKPOINTS[of.checkpoint]} - {*measure.FROZEN}
        expected = len(measure.CHECKPOINTS[of.checkpoint]) + 6 * len(trained)
        assert len({setting for setting, _ in settings}) == len(settings) == expected


def test_the_shipped_recipe_has_the_time_limit():
    _, work = measure._work(SETS["films"], RECIPE, "", 2, 300, Path())
    recipe = load_recipe(work["recipe"], work["overrides"])
    assert (recipe.limit.time, recipe.seed) == ("5m", 2)


@pytest.fixture
def asked(monkeypatch):
    """Replace runs by instant ones, and return the list of requested runs."""
    asked = []

    def run_child(module, work, *, threads=None, python=None):
        data = work["data"] if "data" in work else work["overrides"][0]
        asked.append((module, data, work.get("limit"), python))
        return {"seconds": 10.0 if module == "recipe_run" else 59.0, "right": [True, False]}

    monkeypatch.setattr(measure, "run_child", run_child)
    monkeypatch.setattr(measure, "make", lambda name, seed: Path("/sets", f"{name}-{seed}"))
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 1}, raising=False)
    return asked


def test_each_run_is_done_once_and_unlimited_ones_not_again(tmp_path, asked):
    files = ("--results", str(tmp_path / "auto.json"), "--page", str(tmp_path / "auto.md"))
    chosen = [word for contender in (AUTO, STOCK, RECIPE) for word in ("--contender", contender)]
    words = ("measure", "food", "--seeds", "1", *chosen, *files)
    assert main(words) == 0
    modules = collections.Counter(module for module, *_ in asked)
    # The recipe ends before the shortest limit, so that longer ones change nothing.
    assert modules == {"auto_run": 3, "stock_script": 2, "recipe_run": 1}
    assert main(words) == 0 and len(asked) == 6
    assert "| *food* (1) | 0.500 |" in (tmp_path / "auto.md").read_text(encoding="utf-8")


def test_autogluon_runs_in_its_own_environment(tmp_path, asked, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("python").touch()
    words = [
        "measure",
        "food",
        "--seeds",
        "1",
        "--limit",
        "60",
        "--results",
        "auto.json",
        "--page",
        "auto.md",
    ]
    words += ["--contender", AUTO, "--contender", AUTOGLUON]
    assert main([*words, "--peer-python", "python"]) == 0
    assert {module: python for module, *_, python in asked} == {
        "auto_run": None,
        "autogluon_script": tmp_path / "python",
    }
    assert capsys.readouterr().err == ""
    assert (
        "| auto | frozen features | shipped recipe | stock script | AutoGluon |"
        in Path("auto.md").read_text()
    )


def test_without_an_interpreter_autogluon_is_left_out(tmp_path, asked, capsys):
    files = ("--results", str(tmp_path / "auto.json"), "--page", str(tmp_path / "auto.md"))
    words = (
        "measure",
        "food",
        "--seeds",
        "1",
        "--limit",
        "60",
        "--contender",
        AUTO,
        "--contender",
        AUTOGLUON,
    )
    assert main([*words, *files]) == 0
    assert [module for module, *_ in asked] == ["auto_run"]
    message = capsys.readouterr().err
    assert message.startswith(
        "AutoGluon is left out: --peer-python must be the interpreter of an environment"
    )
    assert "AutoGluon" not in (tmp_path / "auto.md").read_text(encoding="utf-8")
    assert main([*words, *files, "--peer-python", str(tmp_path / "none")]) == 2
    assert capsys.readouterr().err.endswith("none, which does not exist.\n")


@pytest.fixture
def autogluon(monkeypatch):
    """Return the contender with a predictor that knows all labels but one."""

    class Predictor:
        fits: ClassVar = []

        def __init__(self, **given):
            pass

        def fit(self, table, **given):
            self.fits.append((table, given))

        def predict(self, table, as_pandas):
            return np.array(["wrong" if "no" in Path(value).name else "right" for value in table.iloc[:, 0]])

    module = ModuleType("autogluon.multimodal")
    module.MultiModalPredictor = Predictor
    monkeypatch.setitem(sys.modules, "autogluon", ModuleType("autogluon"))
    monkeypatch.setitem(sys.modules, "autogluon.multimodal", module)
    monkeypatch.delitem(sys.modules, "benchmarks.contenders.autogluon_script", raising=False)
    yield import_module("benchmarks.contenders.autogluon_script")
    del sys.modules["benchmarks.contenders.autogluon_script"]


def test_autogluon_gets_the_texts_of_the_training_split(autogluon, tmp_path):
    for split, count in (("train", 3), ("test", 11)):
        rows = "".join(f"{row},{'no' if row == 2 else row},right\n" for row in range(count))
        (tmp_path / f"{split}.csv").write_text(f"id,text,label\n{rows}", encoding="utf-8")
    work = {"data": str(tmp_path), "folder": str(tmp_path), "checkpoint": "/mini-lm"}
    found = autogluon.measure({**work, "images": False, "seed": 0, "limit": 60, "batch_size": 32})
    # in the order of the ids, in which test:10 is before test:2
    assert found["right"] == [row != 3 for row in range(11)]
    ((table, given),) = autogluon.MultiModalPredictor.fits
    assert table.to_dict("list") == {"text": ["0", "1", "no"], "label": ["right"] * 3}
    assert 50 < given["time_limit"] < 60
    assert given["hyperparameters"]["model.hf_text.checkpoint_name"] == "/mini-lm"


def test_autogluon_gets_the_weights_without_the_classifier(autogluon, tmp_path):
    for name in ("train/right/a", "test/right/a", "test/right/no", "test/right/z", "test/wrong/b"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    checkpoint = tmp_path / "checkpoint of the Hub"
    checkpoint.mkdir()
    weights = {"stem.weight": torch.ones(2), "fc.weight": torch.ones(5, 3), "fc.bias": torch.ones(5)}
    save_file(weights, checkpoint / "model.safetensors")
    config = {"architecture": "tiny", "pretrained_cfg": {"classifier": "fc"}}
    (checkpoint / "config.json").write_text(json.dumps(config), encoding="utf-8")
    work = {"data": str(tmp_path), "folder": str(tmp_path / "out"), "checkpoint": str(checkpoint)}
    found = autogluon.measure({**work, "images": True, "seed": 0, "limit": 60, "batch_size": 32})
    assert found["right"] == [True, False, True, False]
    ((table, given),) = autogluon.MultiModalPredictor.fits
    assert table["label"].tolist() == ["right"]
    written = Path(given["hyperparameters"]["model.timm_image.checkpoint_name"])
    assert json.loads((written / "config.json").read_text(encoding="utf-8")) == {**config, "num_features": 3}
    loaded = torch.load(written / "pytorch_model.bin", weights_only=True)
    assert list(loaded) == ["stem.weight"] and torch.equal(loaded["stem.weight"], torch.ones(2))


def test_an_unknown_dataset_is_reported(capsys):
    assert main(["page", "none"]) == 2
    assert capsys.readouterr().err == f"Unknown: none. Known: {', '.join(SETS)}.\n"


def test_rows_are_read_as_they_were_written(tmp_path):
    rows = [row(), row(seed=1, expected=0.5, low=0.25, high=1.0)]
    write_rows(rows, tmp_path / "auto.json")
    assert read_rows(Row, tmp_path / "auto.json") == rows
    assert read_rows(Row, tmp_path / "none.json") == []


def test_the_page_compares_auto_with_each_contender_and_the_best_of_the_grid():
    rows = [
        row(expected=0.7, low=0.5, high=0.9),
        row(limit=300, expected=0.9, low=0.8, high=1.0),
        row(FEATURES, limit=0, right=(1, 1, 0, 0)),
        row(RECIPE, right=(1, 0, 0, 0), seconds=20.0),  # ended before the limit
        row(STOCK, right=(0, 0, 0, 0)),
        *whole_grid(
            **{"efficientnet-lite0_all_1e-3": (1, 1, 1, 1), "efficientnet-lite0_features": (1, 1, 0, 0)}
        ),
    ]
    short, long = render(rows).split("## 1 minute")[1].split("## 5 minutes")
    cells = [
        cell.strip().split(" ")[0]
        for cell in next(line for line in short.splitlines() if "*food*" in line).split("|")
    ]
    assert cells[2:7] == ["0.750", "0.500", "0.250", "0.000", "1.000"]
    assert "| mean difference of auto |  | +0.250 | +0.500 | +0.750 | -0.250 |" in short
    assert "0.250 (" in long  # the recipe, which ended before the shorter limit
    assert "0.000 (" not in long  # the stock script was limited
    assert "| 60 s | 1 | 100% | -0.050 |" in long and "| 300 s | 1 | 0% | +0.150 |" in long


def test_the_page_has_the_rank_correlations_of_the_scores():
    models = ("efficientnet-lite0", "efficientnet-lite1")
    scores = {models[0]: {"choose": 0.9, "LogME": 1.0}, models[1]: {"choose": 0.8, "LogME": 2.0}}
    rows = [
        row(CHOOSE, limit=0, right=(), details=json.dumps(scores)),
        *whole_grid(
            **{
                f"{models[0]}_all_1e-3": (1, 1, 0, 0),
                f"{models[1]}_all_1e-3": (1, 0, 0, 0),
                f"{models[1]}_features": (1, 1, 1, 0),  # is not fine-tuned
            }
        ),
    ]
    text = render(rows)
    assert "| choose | +1.000 | +1.000 | 0.000 |" in text
    assert "| LogME | -1.000 | -1.000 | 0.250 |" in text


def test_a_grid_and_a_limit_are_shown_once_all_datasets_have_them():
    rows = [row(), row(limit=900), row(RECIPE), *whole_grid()[1:]]
    page = render([*rows, row(name="kitchen")])
    assert "oracle" not in page and "## 1 minute" in page and "15 minutes" not in page and "900 s" not in page
    assert "oracle" not in render([*rows, *whole_grid()[:1], row(name="kitchen")])
    assert "oracle" in render([*rows, *whole_grid()[:1]])
    assert "## 15 minutes" in render([*rows, row(name="kitchen", limit=900)])


def test_the_h_score_is_higher_for_separated_classes():
    labels = np.repeat([0, 1], 50)
    noise = np.random.default_rng(0).normal(size=(100, 4))
    apart, mixed = noise.copy(), noise
    apart[:, 0] += 4 * labels
    assert h_score(apart, labels) > 5 * h_score(mixed, labels)
    # one feature: the variance between classes divided by the variance, with hardly any shrinkage
    one = np.array([[0.0], [2.0]]).repeat(500, axis=0)
    assert h_score(one, np.repeat([0, 1], 500)) == pytest.approx(1.0, rel=1e-2)


def test_the_page_in_the_documents_is_that_of_the_rows():
    rows = read_rows(Row, RESULTS)
    assert PAGE.exists() == RESULTS.exists()
    assert not rows or PAGE.read_text(encoding="utf-8") == render(rows)
    assert {each.contender for each in rows} <= set(CONTENDERS)
