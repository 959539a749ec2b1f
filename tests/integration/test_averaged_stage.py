"""Stages with ``seeds``: several trainings from the same weights, of which the mean is kept."""

import json
import os
import signal

import pytest
import torch
from run_helpers import (
    Stop,
    changed,
    quick_run,
    tiny_image_recipe,
    tiny_text_recipe,
    weights_of,
    with_stages,
    without_times,
)
from safetensors.torch import load_file, save_file

from hf_finetune import Stage, StagedTrainer
from hf_finetune.errors import InputError
from hf_finetune.recipe.load import parse_recipe
from hf_finetune.runs.planner import plan
from hf_finetune.training import averaged_stage
from hf_finetune.training.averaged_stage import mean_weights

SEEDS = 3
STAGE = "stages/02-all"


@pytest.fixture(scope="module")
def recipes(reviews, squares, bert_checkpoint, timm_checkpoint):
    """Return a recipe for texts, with dropout, and one for images, augmented, with BatchNorms that train."""
    single = {
        "text": tiny_text_recipe(reviews, bert_checkpoint),
        "image": tiny_image_recipe(squares, timm_checkpoint),
    }
    last = {"best": None}
    return {
        kind: (with_stages(recipe, {}, last), with_stages(recipe, {}, {**last, "seeds": SEEDS}))
        for kind, recipe in single.items()
    }


@pytest.fixture(scope="module", params=["text", "image"])
def finished(request, recipes, tmp_path_factory):
    """Return the run of a recipe without ``seeds``, the recipe with it, and its run."""
    single, averaged = recipes[request.param]
    folder = tmp_path_factory.mktemp(request.param)
    quick_run(single, folder / "single")
    quick_run(averaged, folder / "averaged")
    return folder / "single", averaged, folder / "averaged"


def trainings(folder):
    return [
        load_file(folder / STAGE / f"seed-{number}" / "model.safetensors") for number in range(1, SEEDS + 1)
    ]


def last_stage(folder):
    return json.loads((folder / "metrics.json").read_text(encoding="utf-8"))["stages"][-1]


def test_the_mean_of_different_trainings_is_kept(finished):
    single, _, folder = finished
    first, *others = trainings(folder)
    for name, weight in load_file(single / STAGE / "model.safetensors").items():
        assert torch.allclose(first[name], weight, atol=1e-5), (
            name
        )  # rounded otherwise, at other addresses in memory
    trained = changed(first, others[0])
    assert trained and all(changed(first, other) == trained for other in others)
    mean = load_file(folder / STAGE / "model.safetensors")
    assert (
        changed(mean, mean_weights([folder / STAGE / f"seed-{n}" / "model.safetensors" for n in (1, 2, 3)]))
        == set()
    )
    for name in trained:
        stacked = torch.stack([weights[name].double() for weights in (first, *others)])
        assert torch.allclose(mean[name].double(), stacked.mean(dim=0), atol=1e-7), name
    assert changed(mean, first) == trained


def test_the_results_name_each_training(finished):
    single, _, folder = finished
    once, stage = last_stage(single), last_stage(folder)
    assert len(stage["seeds"]) == SEEDS
    first = stage["seeds"][0]
    assert [first[name] for name in ("epochs", "steps", "best_step")] == [once["epochs"], once["steps"], None]
    assert first["validation"] == pytest.approx(once["validation"], abs=1e-4)
    assert stage["steps"] == sum(each["steps"] for each in stage["seeds"])
    assert stage["epochs"] == pytest.approx(sum(each["epochs"] for each in stage["seeds"]) / SEEDS)
    assert stage["best_step"] is None
    assert stage["start"] == pytest.approx(once["start"], abs=1e-5)
    assert stage["validation"].keys() == once["validation"].keys()
    assert not list((folder / STAGE).glob("seed-*/checkpoint-*"))


def test_the_validation_metrics_are_those_of_the_mean(finished):
    folder = finished[2]
    found = last_stage(folder)["validation"]
    calibration = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))["calibration"]
    assert found["loss"] == pytest.approx(calibration["validation"]["before"]["log_loss"], abs=1e-4)


@pytest.mark.parametrize(
    ("number", "step", "moment"),
    [(1, 2, "ctrl-c"), (2, 0, "begin"), (2, 3, "save"), (3, 4, "ctrl-c at the end")],
)
def test_a_run_that_is_interrupted_in_a_training_ends_the_same(finished, tmp_path, number, step, moment):
    _, recipe, whole = finished
    step = {
        "save": last_stage(whole)["seeds"][1]["steps"] // 2,
        "ctrl-c at the end": last_stage(whole)["seeds"][2]["steps"],
    }.get(moment, step)
    with pytest.raises(KeyboardInterrupt):
        quick_run(recipe, tmp_path / "run", callbacks=[Stop(f"seed-{number}", step, moment)])
    quick_run(recipe, tmp_path / "run", resume=True)
    assert_same(tmp_path / "run", whole)


def assert_same(folder, whole):
    assert changed(weights_of(folder), weights_of(whole)) == set()
    assert (folder / "predictions.parquet").read_bytes() == (whole / "predictions.parquet").read_bytes()
    assert without_times(last_stage(folder)) == without_times(last_stage(whole))


@pytest.mark.parametrize("moment", ["_finish_training", "mean_weights", "evaluate_weights"])
def test_a_run_that_is_killed_between_trainings_ends_the_same(recipes, tmp_path, monkeypatch, moment):
    recipe, whole, folder = recipes["text"][1], tmp_path / "whole", tmp_path / "run"
    quick_run(recipe, whole)
    process = os.fork()
    if process == 0:
        monkeypatch.setattr(averaged_stage, moment, lambda *arguments: os.kill(os.getpid(), signal.SIGKILL))
        try:
            quick_run(recipe, folder)
        finally:
            os._exit(0)
    assert os.WTERMSIG(os.waitpid(process, 0)[1]) == signal.SIGKILL
    quick_run(recipe, folder, resume=True)
    assert_same(folder, whole)


@pytest.mark.parametrize("changes", [{"lr": 0.002}, {"seeds": 2}, {"seeds": None}])
def test_a_change_of_the_stage_restarts_all_trainings(recipes, tmp_path, changes):
    """Otherwise the mean would be that of different settings."""
    recipe, folder, fresh = recipes["text"][1], tmp_path / "run", tmp_path / "fresh"
    with pytest.raises(KeyboardInterrupt):
        quick_run(recipe, folder, callbacks=[Stop("seed-2", 1, "ctrl-c")])
    changed_recipe = with_stages(recipe, {}, changes)
    quick_run(changed_recipe, folder, resume=True, allow_changes=True)
    quick_run(changed_recipe, fresh)
    assert_same(folder, fresh)
    assert sorted(path.name for path in (folder / STAGE).glob("seed-*")) == sorted(
        path.name for path in (fresh / STAGE).glob("seed-*")
    )


def test_the_report_and_the_plan_tell_of_the_trainings(finished, recipes):
    _, recipe, folder = finished
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert (
        "3, each from the same weights and with another random seed; the mean of their weights is kept"
        in page
    )
    assert plan(recipe).recipe.stages[1].seeds == SEEDS


def test_a_trainer_in_python_averages_too(bert_checkpoint, tmp_path):
    from transformers import AutoModelForSequenceClassification, TrainingArguments

    examples = [{"input_ids": [2, 5 + row % 4, 3], "labels": row % 3} for row in range(12)]
    model = AutoModelForSequenceClassification.from_pretrained(bert_checkpoint)
    trainer = StagedTrainer(
        model,
        [Stage("head", epochs=1, lr=1e-2, seeds=2)],
        args=TrainingArguments(str(tmp_path), report_to="none", use_cpu=True),
        train_dataset=examples,
        eval_dataset=examples,
    )
    trainer.train()
    folder = tmp_path / "stages" / "01-head"
    mean = mean_weights([folder / f"seed-{number}" / "model.safetensors" for number in (1, 2)])
    assert torch.equal(model.classifier.weight, mean["classifier.weight"])


def test_the_mean_keeps_the_types_of_the_weights(tmp_path):
    for number, value in enumerate((1.0, 2.0, 6.0)):
        weights = {
            "half": torch.full((2,), value, dtype=torch.bfloat16),
            "single": torch.full((2,), 1e8 + value),
            "count": torch.tensor(number + 5),
        }
        save_file(weights, tmp_path / f"{number}.safetensors")
    mean = mean_weights([tmp_path / f"{number}.safetensors" for number in range(3)])
    assert mean["half"].tolist() == [3.0, 3.0] and mean["half"].dtype == torch.bfloat16
    assert mean["single"].dtype == torch.float32
    assert mean["count"].item() == 5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ([{}, {"seeds": 1}], "stages[1].seeds must be at least 2"),
        (
            [{"seeds": 2}, {"carry_optimizer": True}],
            "stages[1].carry_optimizer must not be set together with stages[0].seeds",
        ),
        (
            [{}, {"seeds": 2, "carry_optimizer": True}],
            "stages[1].carry_optimizer must not be set together with stages[1].seeds",
        ),
        (
            [
                {"seeds": 2, "fit": "logistic_regression", "epochs": None, "lr": None, "optimizer": "adamw"},
                {},
            ],
            "stages[0].seeds must not be set when fit is",
        ),
    ],
)
def test_settings_that_do_not_go_together_are_refused(recipes, changes, message):
    with pytest.raises(InputError) as caught:
        with_stages(recipes["image"][0], *changes)
    assert message in str(caught.value)


def test_a_time_limit_is_refused(recipes):
    content = recipes["text"][1].model_dump(mode="json")
    with pytest.raises(InputError, match=r"stages\[1\]\.seeds must not be set together with limit\. Got 3\."):
        parse_recipe({**content, "limit": "1h"})
