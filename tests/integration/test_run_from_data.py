"""`run --data`: the recipe is written, shown and run, and an interrupted run is resumed with it."""

import os
import signal

import pytest
from forked_cli import forked_cli

from hf_finetune.recipe.load import load_recipe
from hf_finetune.runs import stages

SHORT = ("stages.0.epochs=1", "stages.1.epochs=1", "speed={}")


def run(*arguments, folder):
    return forked_cli("run", *arguments, cwd=folder)


@pytest.fixture(scope="module")
def finished(reviews, bert_checkpoint, tmp_path_factory):
    place = tmp_path_factory.mktemp("data")
    done = run("--data", reviews, *SHORT, "--model", bert_checkpoint, "--output-dir", "out", folder=place)
    assert done.returncode == 0, done.stderr
    return place / "out", done


def test_the_recipe_is_shown_kept_and_run(finished, reviews):
    folder, done = finished
    draft = (folder / "draft.yaml").read_text(encoding="utf-8")
    assert draft in done.stdout
    assert load_recipe(folder / "draft.yaml").data.path == str(reviews)
    assert (folder / "model" / "config.json").is_file()
    assert load_recipe(folder / "recipe.yaml").stages[1].epochs == 1


def test_a_finished_run_is_not_overwritten(finished, reviews):
    folder, _ = finished
    before = (folder / "draft.yaml").stat().st_mtime_ns
    refused = run("--data", reviews, "--output-dir", folder, folder=folder.parent)
    assert refused.returncode == 2
    assert "--output-dir must be empty or not exist" in refused.stderr
    assert (folder / "draft.yaml").stat().st_mtime_ns == before


def test_an_interrupted_run_is_resumed_with_its_recipe(reviews, bert_checkpoint, tmp_path, monkeypatch):
    options = ("--data", reviews, *SHORT, "--model", bert_checkpoint, "--output-dir", "out")
    train_stage = stages.train_averaged

    def die_after_stage(*arguments, **keywords):
        train_stage(*arguments, **keywords)
        os.kill(os.getpid(), signal.SIGKILL)

    with monkeypatch.context() as patch:
        patch.setattr(stages, "train_averaged", die_after_stage)
        killed = run(*options, folder=tmp_path)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    draft = (tmp_path / "out" / "draft.yaml").read_text(encoding="utf-8")
    done = run(*options, "--resume", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "draft.yaml").read_text(encoding="utf-8") == draft
    assert (tmp_path / "out" / "model" / "config.json").is_file()
