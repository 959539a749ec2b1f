"""Class balancing and schedules: two processes train as one does, and resume exactly."""

import shutil

import pytest
import torch
from alike import assert_logged_alike, assert_trained_alike, run_alone, run_on_two
from kit_stages import BALANCES, kit_stages, skewed_reviews
from launching import spread
from safetensors.torch import load_file

from hf_finetune.recipe.load import parse_recipe

STAGES = [f"{index + 1:02d}-{name}" for index, name in enumerate(BALANCES)]


@pytest.fixture(scope="module")
def recipes(tmp_path_factory, reviews, bert_checkpoint):
    """Return the recipe for one process, and for two, each of which takes half of every forward pass."""
    table = skewed_reviews(reviews, tmp_path_factory.mktemp("skewed") / "reviews.csv")

    def recipe(batch_size):
        return parse_recipe(
            {
                "task": "text-classification",
                "model": {"path": str(bert_checkpoint), "dropout": 0.0},
                "data": {"path": str(table), "split": {"validation": 0.15, "test": 0.15, "stratify": False}},
                "stages": kit_stages(epochs=2.0, batch_size=batch_size, accumulation=2, best=None),
                "evaluation": {"linear_probe": None},
            }
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
def test_loss_gradient_and_rate_of_every_step_are_those_of_one_process(alone, two, stage):
    assert_logged_alike(alone, two, stage, 6, learning_rate=0.0)


@pytest.mark.defends("hf_finetune.training.trainer:forward_set_epoch")
def test_two_processes_go_on_bit_for_bit_in_the_middle_of_an_epoch_that_is_drawn(tmp_path, recipes, two):
    event = {"rank": 1, "stage": "sampler", "step": 4, "how": "ctrl-c"}
    ended = spread(tmp_path, recipes[2], 2, event=event)
    assert ended.code != 0 and "the event happens" in ended.err
    assert [stage["state"] for stage in ended.manifest()["stages"]] == [
        *["done"] * 3,
        "running",
        *["pending"] * 2,
    ]
    shutil.rmtree(tmp_path / "ranks")
    done = spread(tmp_path, recipes[2], 2, resume=True)
    assert done.code == 0, done.err[-4000:]
    for stage in STAGES:
        one, other = (
            load_file(folder / "run" / "stages" / stage / "model.safetensors")
            for folder in (two.folder, tmp_path)
        )
        assert [name for name in one if not torch.equal(one[name], other[name])] == []
