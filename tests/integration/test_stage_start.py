"""A stage that makes the model worse restores its initial weights, and reports it."""

import json
import logging
import shutil

import pytest
import torch
from run_helpers import Stop, changed, quick_run, tiny_text_recipe, weights_of, without_times
from safetensors.torch import load_file

from hf_finetune.recipe.load import parse_recipe
from hf_finetune.training import head_fit
from hf_finetune.training.checkpoints import seal_checkpoint

HARMFUL = {"name": "all", "train": "all", "lr": 1.0, "epochs": 2.0, "batch_size": 4, "clip": None}
FIRST = {"name": "head", "train": "head", "lr": 0.05, "epochs": 2.0, "batch_size": 4, "best": None}


@pytest.fixture(scope="module")
def recipe(reviews, bert_checkpoint):
    return tiny_text_recipe(reviews, bert_checkpoint, evaluation={"linear_probe": None})


def with_last(recipe, *more, **changes):
    content = recipe.model_dump(mode="json")
    return parse_recipe({**content, "stages": [FIRST, {**HARMFUL, **changes}, *more]})


@pytest.fixture(scope="module")
def straight(tmp_path_factory, recipe):
    return quick_run(with_last(recipe), tmp_path_factory.mktemp("straight") / "run").folder


@pytest.fixture(scope="module")
def stopped(tmp_path_factory, recipe):
    """Return a run that was killed after the checkpoint of the first harmful epoch."""
    folder = tmp_path_factory.mktemp("stopped") / "run"
    with pytest.raises(KeyboardInterrupt):
        quick_run(with_last(recipe), folder, callbacks=[Stop("all", 7, "save")])
    return folder


def stage_of(folder, index=1):
    return json.loads((folder / "metrics.json").read_text(encoding="utf-8"))["stages"][index]


def left_by(folder, stage):
    return load_file(folder / "stages" / stage / "model.safetensors")


def assert_start_goes_on(folder, epochs):
    entry = stage_of(folder)
    assert entry["best_step"] == 0 and entry["validation"] == entry["start"]
    assert entry["trained"]["loss"] > entry["start"]["loss"]
    assert entry["epochs"] == epochs
    assert changed(left_by(folder, "01-head"), left_by(folder, "02-all")) == set()
    report = (folder / "report.html").read_text(encoding="utf-8")
    assert "the initial weights: the stage brought no improvement" in report


@pytest.mark.defends(
    "hf_finetune.training.trainer:SingleStageTrainer._evaluate",
    why="The initial weights of a stage are one of its checkpoints",
)
def test_initial_weights_are_kept_if_training_makes_the_model_worse(straight):
    assert_start_goes_on(straight, epochs=2.0)


def test_it_ends_early_if_no_epoch_improves_on_the_initial_weights(tmp_path, recipe, caplog):
    caplog.set_level(logging.INFO, "hf_finetune")
    changes = {"early_stopping": 1, "regularize": {"ema": 0.5}}
    assert_start_goes_on(quick_run(with_last(recipe, **changes), tmp_path / "run").folder, epochs=1.0)
    assert "Stage all: no epoch improved on the initial weights" in caplog.text


def test_the_carried_moments_are_those_of_the_initial_weights(tmp_path, recipe):
    carries = {"train": "head", "carry_optimizer": True}
    again = {**FIRST, "name": "again", "lr": 0.01, "carry_optimizer": True}
    folder = quick_run(with_last(recipe, again, **carries), tmp_path / "run").folder
    assert_start_goes_on(folder, epochs=2.0)
    one, other = (
        torch.load(folder / "stages" / stage / "optimizer.pt", weights_only=True)
        for stage in ("01-head", "02-all")
    )
    assert one.keys() == other.keys() != set()
    assert all(torch.equal(one[name][key], other[name][key]) for name in one for key in one[name])


def test_without_a_best_metric_a_worse_end_is_reported(tmp_path, recipe, caplog):
    caplog.set_level(logging.INFO, "hf_finetune")
    folder = quick_run(with_last(recipe, best=None), tmp_path / "run").folder
    assert stage_of(folder)["best_step"] is None
    assert changed(left_by(folder, "01-head"), left_by(folder, "02-all"))
    assert "Stage all: the model became worse (accuracy" in caplog.text


def test_an_interrupted_stage_still_knows_its_start(tmp_path, recipe, straight, stopped):
    """Also after the run was moved."""
    shutil.copytree(stopped, tmp_path / "moved")
    quick_run(with_last(recipe), tmp_path / "moved", resume=True)
    assert without_times(stage_of(tmp_path / "moved")) == without_times(stage_of(straight))
    assert changed(weights_of(straight), weights_of(tmp_path / "moved")) == set()
    names = [
        sorted(path.name for path in (folder / "stages" / "02-all").glob("checkpoint-*"))
        for folder in (straight, tmp_path / "moved")
    ]
    assert names == [["checkpoint-0", "checkpoint-14"]] * 2


def test_a_stage_of_an_older_version_resumes_without_its_initial_weights(tmp_path, recipe, stopped):
    """Such a run has no evaluation at step 0, and no checkpoint of it."""
    shutil.copytree(stopped, tmp_path / "run")
    stage = tmp_path / "run" / "stages" / "02-all"
    shutil.rmtree(stage / "checkpoint-0")
    state_file = stage / "checkpoint-7" / "trainer_state.json"
    state = json.loads(state_file.read_text(encoding="utf-8"))
    assert state["best_global_step"] == 0
    state.update(best_global_step=7, best_model_checkpoint=str(stage / "checkpoint-7"))
    state["log_history"] = [entry for entry in state["log_history"] if entry["step"] > 0]
    state_file.write_text(json.dumps(state), encoding="utf-8")
    seal_checkpoint(stage / "checkpoint-7")
    entry = stage_of(quick_run(with_last(recipe), tmp_path / "run", resume=True).folder)
    assert entry["best_step"] in (7, 14) and entry["start"] == {} and "trained" not in entry


def test_a_fitted_head_that_is_worse_than_the_one_before_is_not_taken(tmp_path, recipe, monkeypatch):
    """The fit is spoiled by inverted labels."""
    fit = head_fit.fit_linear
    monkeypatch.setattr(head_fit, "fit_linear", lambda x, y, *args, **kwargs: fit(x, 1 - y, *args, **kwargs))
    content = recipe.model_dump(mode="json")
    refit = {"name": "refit", "train": "head", "fit": "logistic_regression"}
    longer = {**FIRST, "train": "all", "lr": 0.01, "epochs": 4.0}
    folder = quick_run(parse_recipe({**content, "stages": [longer, refit]}), tmp_path / "run").folder
    entry = stage_of(folder)
    assert entry["best_step"] == 0 and entry["validation"] == entry["start"]
    assert entry["trained"]["loss"] > entry["start"]["loss"]
    assert changed(left_by(folder, "01-head"), left_by(folder, "02-refit")) == set()
