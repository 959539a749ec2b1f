"""Paths of recipes and commands that are too long for the file system are reported clearly."""

from pathlib import Path

import pytest
from evaluation_helpers import save_bert

from hf_finetune.errors import InputError
from hf_finetune.evaluation.classifier import resolve_model_dir
from hf_finetune.evaluation.compare import compare_runs
from hf_finetune.recipe.load import load_recipe
from hf_finetune.report.run_record import read_run
from hf_finetune.runs.folder import check_folder
from hf_finetune.runs.planner import plan

LONG = ["x" * 300, "x" * 300 + ".csv", "a/" + "x" * 300, "x/" * 3000, "a\0b"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("long")
    save_bert(folder / "bert")
    rows = [f"film {row},{'ab'[row % 2]}" for row in range(20)]
    (folder / "reviews.csv").write_text("\n".join(["text,label", *rows, ""]))
    (folder / "text.yaml").write_text(
        "{task: text-classification, model: ./bert, data: ./reviews.csv, stages: [{train: head, epochs: 1}]}"
    )
    return folder


@pytest.mark.parametrize("path", LONG)
@pytest.mark.parametrize("field", ["data", "model"])
def test_a_recipe_that_names_one(folder, monkeypatch, path, field):
    monkeypatch.chdir(folder)
    with pytest.raises(InputError) as error:
        plan(
            load_recipe(
                "text.yaml", [f"{field}.path={path}"] if "\0" not in path else [f'{field}.path="a\\0b"']
            )
        )
    assert f"{field}.path must be a" in str(error.value)


@pytest.mark.parametrize("path", LONG)
def test_a_command_that_names_one(path):
    with pytest.raises(InputError, match="must be a checkpoint folder, a run or a Hub id"):
        resolve_model_dir(path)
    with pytest.raises(InputError, match=r"must be a run directory\. Got an invalid folder name"):
        read_run(Path(path))
    with pytest.raises(InputError, match=r"must be a run directory\. Got an invalid folder name"):
        compare_runs([path, "other"])
    with pytest.raises(InputError, match="--output-dir must be a valid folder name"):
        check_folder(Path(path))
