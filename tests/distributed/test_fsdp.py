"""FSDP 2 on the CPU: with a sharded model, all guarantees hold as without FSDP."""

import shutil

import pytest
import torch
from launching import spread
from safetensors.torch import load_file
from test_interrupted import assert_learns_alike, recipe_with_best, same, stage_weights
from test_processes import image_recipe, log_of, values
from transformers import AutoModelForSequenceClassification

from hf_finetune.errors import InputError
from hf_finetune.runs.prepare import plan_stages
from hf_finetune.runs.run import run
from hf_finetune.training.checkpoints import last_checkpoint

STAGES = ("01-head", "02-all")


@pytest.fixture(scope="module")
def recipe(reviews, bert_checkpoint):
    return recipe_with_best(reviews, bert_checkpoint, 3)


@pytest.fixture(scope="module")
def sharded(tmp_path_factory, recipe):
    done = spread(tmp_path_factory.mktemp("fsdp"), recipe, 2, mode="fsdp")
    assert done.code == 0, done.err[-4000:]
    return done


@pytest.fixture(scope="module")
def alone(tmp_path_factory, reviews, bert_checkpoint):
    folder = tmp_path_factory.mktemp("alone")
    run(recipe_with_best(reviews, bert_checkpoint, 6), folder / "run")
    return folder


@pytest.mark.defends(
    "hf_finetune.training.trainer:SingleStageTrainer.create_accelerator_and_postprocess",
    why="FSDP shards the model on the CPU too",
)
def test_the_model_is_divided(sharded):
    """accelerate 1.15 alone trains with DDP on the CPU, whatever ``--use_fsdp`` says."""
    for stage in STAGES:
        for rank in (0, 1):
            notes = sharded.notes(stage, rank)
            assert notes["sharded"] == 41
    checkpoint = last_checkpoint(sharded.folder / "run" / "stages" / "02-all")
    assert (checkpoint / "pytorch_model_fsdp.bin").is_file()


def test_exactly_the_planned_parameters_change(sharded, recipe):
    for stage, plan in zip(STAGES, plan_stages(recipe).plan.stages, strict=True):
        for rank in (0, 1):
            before, after = sharded.weights(stage, rank, "before"), sharded.weights(stage, rank)
            moved = set(same(before, after))
            assert moved <= set(plan.trainable)
            # attention does not depend on a key's bias: its gradient is only rounding
            assert {name for name in set(plan.trainable) - moved if "key.bias" not in name} == set()
            assert sum(sharded.notes(stage, rank)["groups"]) == plan.trainable_size
    assert same(sharded.weights("02-all", 0), sharded.weights("02-all", 1)) == []


def test_frozen_modules_stay_in_eval(sharded):
    for mode in sharded.notes("01-head", 0)["training"]:
        assert mode == ["", "classifier"]


def test_it_trains_as_one_process_does(sharded, alone):
    assert_learns_alike(alone, sharded.folder)


def test_the_saved_model_is_a_plain_one(sharded):
    folder = sharded.folder / "run" / "model"
    model, info = AutoModelForSequenceClassification.from_pretrained(folder, output_loading_info=True)
    assert not any(info.values())
    assert model.config.architectures == ["BertForSequenceClassification"]
    staged = stage_weights(sharded.folder, "02-all")
    assert same(load_file(folder / "model.safetensors"), staged) == []


def test_an_interrupted_run_resumes_bit_for_bit(sharded, tmp_path, recipe):
    # not step 7, the first one after the checkpoint, which the main process may then still be writing
    event = {"rank": 1, "stage": "all", "step": 8, "how": "exit"}
    ended = spread(tmp_path, recipe, 2, mode="fsdp", event=event)
    assert ended.code != 0
    shutil.copytree(tmp_path / "run", tmp_path / "other" / "run")
    done = spread(tmp_path, recipe, 2, mode="fsdp", resume=True)
    assert done.code == 0, done.err[-4000:]
    for stage in STAGES:
        assert same(stage_weights(sharded.folder, stage), stage_weights(tmp_path, stage)) == []
        one, other = (log_of(folder / "run", stage) for folder in (sharded.folder, tmp_path))
        assert values(other, "loss") == values(one, "loss")
    # and is not mistaken for a run without FSDP
    with pytest.raises(InputError) as caught:
        run(recipe, tmp_path / "other" / "run", resume=True)
    assert str(caught.value) == (
        "--resume must be used with FSDP, as the stage's checkpoints were written with it. "
        "Launch with --use_fsdp, or start a new run."
    )


def test_a_timm_model_with_batch_norms_is_sharded_too(tmp_path, squares, timm_checkpoint):
    recipe = image_recipe(squares, timm_checkpoint)
    done = spread(tmp_path, recipe, 2, mode="fsdp")
    assert done.code == 0, done.err[-4000:]
    for stage, plan in zip(STAGES, plan_stages(recipe).plan.stages, strict=True):
        before, after = done.weights(stage, 0, "before"), done.weights(stage, 0)
        moved = set(same(before, after))
        statistics = {name for name in moved if name.rpartition(".")[2].startswith(("running", "num_b"))}
        assert moved - statistics == set(plan.trainable)
        assert bool(statistics) == (stage == "02-all")
        # FSDP leaves the statistics of each process to itself
        assert same(after, done.weights(stage, 1)) == []


def test_the_first_version_of_fsdp_is_refused(monkeypatch, recipe, tmp_path):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    monkeypatch.setenv("FSDP_VERSION", "1")
    with pytest.raises(InputError) as caught:
        run(recipe, tmp_path / "run")
    assert str(caught.value) == (
        "--fsdp_version must be 2. Got 1. accelerate's default is 1: set it in accelerate launch "
        "or in its config file."
    )
    assert not (tmp_path / "run").exists()
    assert torch.distributed.is_initialized() is False
