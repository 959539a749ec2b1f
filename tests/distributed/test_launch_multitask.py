"""Several tasks in one model: two processes train as one does, and resume exactly."""

import shutil

import pytest
import torch
from alike import assert_logged_alike, assert_trained_alike, run_alone, run_on_two
from launching import spread
from multitask_data import text_recipe, texts_by_length
from safetensors.torch import load_file
from test_processes import log_of, values

STAGES = ["01-head", "02-all", "03-one"]


@pytest.fixture(scope="module")
def recipes(tmp_path_factory, reviews, bert_checkpoint):
    """Return the recipe for one process, and for two, each of which takes half of every forward pass.

    42 examples in steps of 8: the last step has two, one on each process.
    """
    words = texts_by_length(tmp_path_factory.mktemp("words") / "words.csv")

    def recipe(batch_size):
        common = {"epochs": 2.0, "batch_size": batch_size, "accumulation": 2, "best": None}
        return text_recipe(
            reviews,
            words,
            {"path": str(bert_checkpoint), "dropout": 0.0},
            stages=[
                {"name": "head", "train": "head", "lr": 0.05, **common},
                {"name": "all", "train": "all", "lr": 0.005, **common},
                {"name": "one", "train": "/task_words|log_variance/", "lr": 0.02, **common},
            ],
            evaluation={"linear_probe": None},
        )

    return {1: recipe(4), 2: recipe(2)}


@pytest.fixture(scope="module")
def alone(tmp_path_factory, recipes):
    return run_alone(tmp_path_factory, recipes[1])


@pytest.fixture(scope="module")
def two(tmp_path_factory, recipes):
    return run_on_two(tmp_path_factory, recipes[2])


@pytest.mark.parametrize("stage", STAGES)
def test_two_processes_train_as_one_does(alone, two, stage):
    assert_trained_alike(alone, two, stage, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("stage", STAGES)
def test_loss_and_gradient_of_every_step_are_those_of_one_process(alone, two, stage):
    assert_logged_alike(alone, two, stage, 12)


def test_the_metrics_of_each_task_are_those_of_one_process(alone, two):
    one, other = (log_of(folder, "02-all") for folder in (alone, two.folder / "run"))
    for name in ("eval_type/accuracy", "eval_words/rmse", "eval_mean", "eval_loss"):
        assert len(values(one, name)) == 3  # at the start, and after each epoch
        assert values(other, name) == pytest.approx(values(one, name), rel=1e-3)


def test_two_processes_resume_bit_for_bit_in_the_middle_of_an_epoch(tmp_path, recipes, two):
    event = {"rank": 1, "stage": "all", "step": 8, "how": "ctrl-c"}
    ended = spread(tmp_path, recipes[2], 2, event=event)
    assert ended.code != 0 and "the event happens" in ended.err
    shutil.rmtree(tmp_path / "ranks")
    done = spread(tmp_path, recipes[2], 2, resume=True)
    assert done.code == 0, done.err[-4000:]
    for stage in STAGES:
        one, other = (
            load_file(folder / "run" / "stages" / stage / "model.safetensors")
            for folder in (two.folder, tmp_path)
        )
        assert [name for name in one if not torch.equal(one[name], other[name])] == []
