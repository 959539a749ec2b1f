"""Regularization: two processes train as one does, keep equal weights, and resume exactly."""

import shutil

import pytest
import torch
from alike import assert_logged_alike, assert_trained_alike, run_alone, run_on_two
from kit_stages import EVERYWHERE, OF_IMAGES, OF_TEXTS, regular_stages
from launching import spread
from safetensors.torch import load_file
from test_processes import log_of, values

from hf_finetune.recipe.load import parse_recipe

TEXTS = [f"{index + 1:02d}-{name}" for index, name in enumerate(OF_TEXTS)]
IMAGES = [f"{index + 1:02d}-{name}" for index, name in enumerate(OF_IMAGES)]


@pytest.fixture(scope="module")
def texts(reviews, bert_checkpoint):
    """Return the recipe for one process, and for two, each of which takes half of every forward pass.

    With SGD: the gradient of a key's bias is only rounding, which Adam would amplify.
    """

    def recipe(batch_size):
        return parse_recipe(
            {
                "task": "text-classification",
                "model": {"path": str(bert_checkpoint), "dropout": 0.0},
                "data": {
                    "path": str(reviews),
                    "split": {"validation": 0.15, "test": 0.15, "stratify": False},
                },
                "stages": regular_stages(
                    OF_TEXTS, epochs=2.0, batch_size=batch_size, accumulation=2, optimizer="sgd"
                ),
                "evaluation": {"linear_probe": None},
            }
        )

    return {1: recipe(4), 2: recipe(2)}


@pytest.fixture(scope="module")
def images(squares, timm_checkpoint):
    """Return a recipe for two processes with an odd number of examples, so that one gets a filler."""
    return parse_recipe(
        {
            "task": "image-classification",
            "model": str(timm_checkpoint),
            "data": {"path": str(squares), "augment": "light", "split": {"validation": 0.17, "test": 0.17}},
            "stages": regular_stages(OF_IMAGES, epochs=2.0, batch_size=3, optimizer="sgd"),
            "evaluation": {"linear_probe": None},
        }
    )


@pytest.fixture(scope="module")
def alone(tmp_path_factory, texts):
    return run_alone(tmp_path_factory, texts[1])


@pytest.fixture(scope="module")
def two(tmp_path_factory, texts):
    return run_on_two(tmp_path_factory, texts[2])


@pytest.mark.parametrize("stage", TEXTS)
def test_two_processes_train_as_one_does(alone, two, stage):
    assert_trained_alike(alone, two, stage, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("stage", TEXTS)
def test_loss_gradient_and_evaluations_are_those_of_one_process(alone, two, stage):
    assert_logged_alike(alone, two, stage, 8, raw_loss=1e-3, average_loss=1e-3)
    one, other = (log_of(folder, stage) for folder in (alone, two.folder / "run"))
    assert len(values(one, "average_loss")) == (2 if "ema" in OF_TEXTS[stage[3:]] else 0)
    assert values(other, "averaged") == values(one, "averaged")


def test_two_processes_mix_consistently_and_resume_bit_for_bit(tmp_path, images):
    """Each process mixes its own batches; BatchNorm statistics, and their average, are those of the first one."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    done = spread(whole, images, 2)
    assert done.code == 0, done.err[-4000:]
    for stage in IMAGES:
        first, second = (done.weights(stage, rank) for rank in range(2))
        assert [name for name in first if not torch.equal(first[name], second[name])] == []
    event = {"rank": 1, "stage": "all-of-them", "step": 5, "how": "exit"}
    ended = spread(parts, images, 2, event=event)
    assert ended.code != 0 and "the event happens" in ended.err
    states = [stage["state"] for stage in ended.manifest()["stages"]]
    assert states == [*["done"] * (len(EVERYWHERE) + 2), "running"]
    shutil.rmtree(parts / "ranks")
    again = spread(parts, images, 2, resume=True)
    assert again.code == 0, again.err[-4000:]
    for stage in IMAGES:
        one, other = (
            load_file(folder / "run" / "stages" / stage / "model.safetensors") for folder in (whole, parts)
        )
        assert [name for name in one if not torch.equal(one[name], other[name])] == []
    results = [each.metrics()["stages"] for each in (done, again)]
    assert [stage["validation"] for stage in results[0]] == [stage["validation"] for stage in results[1]]
