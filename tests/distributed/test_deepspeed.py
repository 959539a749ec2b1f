"""A DeepSpeed config is passed through: ZeRO shards optimizer or model, and exactly the declared parameters train.

Where DeepSpeed is not installed, tests/unit/test_start_processes.py covers its support.
"""

import importlib.util
import json

import pytest
from launching import launch
from safetensors.torch import load_file
from test_interrupted import assert_learns_alike, recipe_with_best, same, stage_weights

from hf_finetune.distributed import ZERO3_GATHER_SETTING
from hf_finetune.runs.prepare import plan_stages
from hf_finetune.runs.run import run

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("deepspeed") is None,
    reason="DeepSpeed is not installed: it is built against the torch that is there, which pip cannot resolve",
)
STAGES = ("01-head", "02-all")


def configure(folder, stage, **more):
    config = {"train_micro_batch_size_per_gpu": "auto", "gradient_accumulation_steps": "auto"}
    config |= {
        "train_batch_size": "auto",
        "gradient_clipping": "auto",
        "zero_optimization": {"stage": stage, ZERO3_GATHER_SETTING: True},
    }
    (folder / "deepspeed.json").write_text(json.dumps(config | more), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def recipe(reviews, bert_checkpoint):
    return recipe_with_best(reviews, bert_checkpoint, 3)


@pytest.fixture(scope="module")
def alone(tmp_path_factory, reviews, bert_checkpoint):
    folder = tmp_path_factory.mktemp("alone")
    run(recipe_with_best(reviews, bert_checkpoint, 6), folder / "run")
    return folder


@pytest.fixture(scope="module", params=[2, 3], ids=["ZeRO-2", "ZeRO-3"])
def divided(request, tmp_path_factory, recipe):
    done = launch(configure(tmp_path_factory.mktemp("zero"), request.param), recipe, 2, mode="deepspeed")
    assert done.code == 0, done.err[-4000:]
    return done


def test_deepspeed_it_is(divided):
    for stage in STAGES:
        assert {divided.notes(stage, rank)["optimizer"] for rank in (0, 1)} == {"DeepSpeedOptimizerWrapper"}


def test_exactly_the_planned_parameters_change(divided, alone, recipe):
    before = load_file(f"{recipe.model.path}/model.safetensors")
    for stage, plan in zip(STAGES, plan_stages(recipe).plan.stages, strict=True):
        after = stage_weights(divided.folder, stage)
        moved = {name for name in before if name in after and name in same(before, after)}
        assert moved <= set(plan.trainable)
        before = after


def test_it_trains_as_one_process_does(divided, alone):
    assert_learns_alike(alone, divided.folder)


def test_an_interrupted_run_resumes_bit_for_bit(tmp_path, recipe):
    straight, ended = (
        configure(tmp_path / name, 2) for name in ("straight", "ended") if not (tmp_path / name).mkdir()
    )
    assert launch(straight, recipe, 2, mode="deepspeed").code == 0
    event = {"rank": 1, "stage": "all", "step": 7, "how": "exit"}
    assert launch(ended, recipe, 2, mode="deepspeed", event=event).code != 0
    done = launch(ended, recipe, 2, mode="deepspeed", resume=True)
    assert done.code == 0, done.err[-4000:]
    for stage in STAGES:
        assert same(stage_weights(straight, stage), stage_weights(ended, stage)) == []
