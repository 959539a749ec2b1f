"""The first check of a recipe: wrong fields and missing paths together, without torch and without the network."""

import subprocess
import sys

import pytest

from hf_finetune.recipe.paths import is_local, missing_checkpoint, missing_data, path_problems
from hf_finetune.recipe.quick_check import check_fields_and_paths

RECIPE = """\
task: text-classification
model: ./bert
data: ./reviews.csv
stages: [{train: head, epochs: 1, lr: 1e-3}, {train: all, epochs: 2, lr: 1e-4}]
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "bert").mkdir()
    (tmp_path / "reviews.csv").write_text("text,label\n", encoding="utf-8")
    (tmp_path / "recipe.yaml").write_text(RECIPE, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_good_recipe_has_no_problems_and_whole_paths(folder):
    recipe, problems = check_fields_and_paths("recipe.yaml")
    assert problems == []
    assert (recipe.model.path, recipe.data.path) == (str(folder / "bert"), str(folder / "reviews.csv"))


def test_fields_values_and_paths_are_reported_together(folder):
    wrong = RECIPE.replace("lr: 1e-3", "lr: 1e-3, lerning_rate: 3").replace("epochs: 2", "epochs: -1")
    (folder / "recipe.yaml").write_text(wrong, encoding="utf-8")
    recipe, problems = check_fields_and_paths("recipe.yaml", ["model=./brt", "data.path=./revews.csv"])
    assert [str(problem) for problem in problems[1:]] == [
        "stages[1].epochs must be above 0. Got -1.",
        f"data.path must be a folder, a data file or a Hub id. Got './revews.csv'. "
        f"Nearest: '{folder / 'reviews.csv'}'.",
        "model.path must be a checkpoint: a folder with config.json, or a name on the Hub. Got './brt'. "
        "Nearest: './bert'.",
    ]
    assert str(problems[0]).startswith("stages[0].lerning_rate must be a known field.")
    assert recipe.stages[1].epochs == 1, "the rest can be checked further"


@pytest.mark.parametrize(
    ("override", "checkable"),
    [
        ("stages.0.train=[]", True),
        ("stages.0.epochs=none", True),
        ("metrics=3", True),
        ("seed=-1", True),
        ("model.dropout=2", False),
        ("data.target=classes", False),
    ],
)
def test_what_is_left_of_a_wrong_recipe_is_checked_unless_it_would_mislead(folder, override, checkable):
    recipe, problems = check_fields_and_paths("recipe.yaml", [override])
    assert problems
    assert (recipe is not None) == checkable


def test_a_file_that_is_no_recipe_has_nothing_to_check(folder):
    (folder / "recipe.yaml").write_text("a: [", encoding="utf-8")
    recipe, problems = check_fields_and_paths("recipe.yaml")
    assert recipe is None
    assert len(problems) == 1


@pytest.mark.parametrize(
    ("path", "local"),
    [
        ("bert-base-uncased", False),
        ("google/vit-base-patch16-224", False),
        ("timm/resnet50", False),
        ("./bert", True),
        ("/models/bert", True),
        ("~/bert", True),
        ("runs/photos/model", True),
        ("bert/nothing", True),  # its first folder exists
        ("assets/nothing", True),  # made by a command of this project
        ("reviews.csv", True),
        ("data/reviews.jsonl.gz", True),
        (r"models\bert", True),
    ],
)
def test_which_paths_can_only_be_local(folder, path, local):
    assert is_local(path) == local


@pytest.mark.parametrize(
    ("name", "local"),
    [
        ("films.cvs", True),
        ("film.jsonn", True),
        ("films", False),
        ("gpt2.5", False),
        ("nobody/films.cvs", False),
    ],
)
def test_a_name_similar_to_an_existing_data_file_is_no_hub_id(folder, name, local):
    (folder / "films.csv").write_text("text,label\n", encoding="utf-8")
    (folder / "film.json").write_text("[]", encoding="utf-8")
    assert is_local(name) == local
    found = missing_data(name)
    assert (found is not None) == local
    assert found is None or "Nearest: " in found.repair


def test_a_missing_asset_names_the_command_that_makes_it(folder):
    assert str(missing_checkpoint("assets/nothing")) == (
        "model.path must be a checkpoint: a folder with config.json, or a name on the Hub. Got 'assets/nothing'. "
        "Run `make assets` in the checkout of hf-finetune."
    )
    assert missing_data("assets/movie-reviews/reviews.csv").repair == (
        "Run `make assets` in the checkout of hf-finetune."
    )
    (folder / "assets" / "efficientnet-lite0").mkdir(parents=True)
    assert missing_checkpoint("assets/eficientnet-lite0").repair == "Nearest: 'assets/efficientnet-lite0'."
    assert missing_checkpoint("assets/efficientnet-lite0") is None


def test_every_path_of_a_recipe_is_looked_at(folder):
    content = {
        "model": {"path": "./no-model"},
        "tasks": {"a": {"data": "./no-a"}, "b": {"data": {"path": "./no-b"}}, "c": {"data": "owner/name"}},
        "domain_adaptation": {"target": "./no-target", "method": "dann"},
    }
    assert [problem.place for problem in path_problems(content)] == [
        "tasks.a.data.path",
        "tasks.b.data.path",
        "domain_adaptation.target",
        "model.path",
    ]
    assert path_problems({"model": 3, "data": ["x"], "tasks": [1]}) == []
    assert path_problems("text") == []


@pytest.mark.slow
def test_the_first_look_imports_no_large_library():
    modules = "hf_finetune.recipe.quick_check, hf_finetune.cli.app"
    code = f"import {modules}, sys; print({{'torch', 'datasets'}} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "set()\n"
