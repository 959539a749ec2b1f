"""Run directories of version 0.1.0 stay usable by evaluate, predict and report, and resume to the same end.

The archive was written before the folders of the package were rearranged: a finished run of one task, a finished run of
two tasks, and a run that was killed in its second stage, with the recipe of the first.
"""

import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
import yaml
from safetensors.numpy import load_file
from typer.testing import CliRunner

from hf_finetune import run
from hf_finetune.cli.app import app
from hf_finetune.evaluation.evaluate_run import evaluate
from hf_finetune.recipe.load import parse_recipe

ARCHIVE = Path(__file__).parents[1] / "data" / "runs-0.1.0.tar.gz"


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """Unpack the archive, and change to its folder: the paths in the recipes are relative."""
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(tmp_path, filter="data")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def call(*words):
    """Call a command, and return its output."""
    outcome = CliRunner().invoke(app, [str(word) for word in words])
    assert outcome.exit_code == 0, outcome.output
    return outcome.output


@pytest.mark.parametrize("folder", ["one-task", "several-tasks/tasks/tone", "several-tasks/tasks/length"])
def test_the_evaluation_of_an_old_run_is_unchanged(runs, folder):
    stored = json.loads((runs / folder / "metrics.json").read_text())["test"]["accuracy"]
    assert evaluate(folder).metrics["accuracy"] == stored


def test_an_old_run_predicts_is_reported_and_is_compared(runs):
    assert "good" in call("predict", "one-task", "good the film great")
    call("report", "one-task")
    assert "accuracy" in (runs / "one-task" / "report.html").read_text(encoding="utf-8")
    assert "accuracy" in call("compare", "one-task", "one-task")


def test_an_old_run_of_several_tasks_is_reported(runs):
    call("report", "several-tasks")
    page = (runs / "several-tasks" / "report.html").read_text(encoding="utf-8")
    assert "tone" in page and "length" in page


def test_an_old_run_is_resumed_to_the_end_of_the_run_without_the_interruption(runs):
    recipe = yaml.safe_load((runs / "interrupted" / "recipe.yaml").read_text(encoding="utf-8"))
    run(parse_recipe(recipe), "interrupted", resume=True)
    assert json.loads((runs / "interrupted" / "manifest.json").read_text())["state"] == "done"
    resumed, straight = (
        load_file(runs / folder / "model" / "model.safetensors") for folder in ("interrupted", "one-task")
    )
    assert resumed.keys() == straight.keys()
    for name, weight in straight.items():
        np.testing.assert_allclose(resumed[name], weight, rtol=1e-4, atol=1e-5)


def test_an_old_recipe_is_planned(runs):
    assert "Stage 1, head: train head" in call("plan", "one-task/recipe.yaml")
    assert "Stage 1, all: train all" in call("plan", "several-tasks/recipe.yaml")
