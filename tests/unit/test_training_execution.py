"""Execution of a stage: settings, benchmarks, and a resumed stage that keeps its mode."""

import json
from types import SimpleNamespace

import pytest
import torch
from stage_helpers import Examples, collate, state_of, train_stages
from transformers import TrainerCallback

from hf_finetune.models.layout import read_layout
from hf_finetune.performance.autotune import Choice
from hf_finetune.performance.execution_modes import ExecutionMode
from hf_finetune.planning.stages import PlannedStage, build_plan
from hf_finetune.recipe.speed import SpeedSpec
from hf_finetune.recipe.stage_fields import StageSpec
from hf_finetune.targets.losses import loss_for
from hf_finetune.training import execution
from hf_finetune.training.execution import plan_execution
from hf_finetune.training.freezing import freeze_all_but
from hf_finetune.training.stage_inputs import ExecutionSettings, StageData, StageOutput

AUTO = SpeedSpec.model_validate("auto")
NAME = "timm/test_resnet"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_FINETUNE_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def measured(monkeypatch):
    """Replace the benchmark by a given mode, and count its calls."""
    seen = SimpleNamespace(mode=ExecutionMode("bf16", "channels_last"), calls=[])

    def choose(model, batch, loss, trainable, candidates, **options):
        seen.calls.append((candidates, options))
        return Choice(seen.mode, seen.mode.title)

    monkeypatch.setattr(execution, "choose_mode", choose)
    return seen


def decide(model, folder, speed, train="last:1", resume=False):
    stage = StageSpec(train=train, epochs=4, lr=0.1, batch_size=4)
    (plan,) = build_plan(read_layout(model), [stage], 12).stages
    freeze_all_but(model, plan.trainable)
    return plan_execution(
        model,
        PlannedStage(stage, plan),
        StageData("single_label", Examples(model, 12), collate),
        loss_for("single_label"),
        ExecutionSettings(speed),
        StageOutput(folder, resume),
    )


def test_settings_of_the_recipe_are_not_benchmarked(tmp_path, tiny_model, measured):
    speed = SpeedSpec(precision="bf16", memory_format="channels_last")
    assert decide(tiny_model(NAME), tmp_path, speed).mode == ExecutionMode("bf16", "channels_last", False)
    assert measured.calls == []


def test_explicit_settings_are_kept_while_the_rest_is_benchmarked(tmp_path, tiny_model, measured):
    decide(tiny_model(NAME), tmp_path, AUTO.model_copy(update={"precision": "fp32"}))
    ((candidates, options),) = measured.calls
    assert {mode.precision for mode in candidates} == {"fp32"}
    assert {mode.memory_format for mode in candidates} == {"contiguous", "channels_last"}
    assert options["steps"] == 12 and not options["forward_only"]


@pytest.mark.defends(
    "hf_finetune.training.execution:_read_decision", why="A resumed stage keeps its execution mode"
)
def test_a_resumed_stage_computes_as_it_began(tmp_path, tiny_model, measured):
    model = tiny_model(NAME)
    assert decide(model, tmp_path, AUTO).mode == measured.mode
    measured.mode = ExecutionMode()
    assert decide(model, tmp_path, AUTO, resume=True).mode == ExecutionMode("bf16", "channels_last")
    assert len(measured.calls) == 1
    assert decide(model, tmp_path, AUTO).mode == ExecutionMode()


def test_a_resumed_stage_with_other_settings_is_benchmarked_again(tmp_path, tiny_model, measured):
    model = tiny_model(NAME)
    decide(model, tmp_path, AUTO)
    speed = AUTO.model_copy(update={"precision": "fp32"})
    measured.mode = ExecutionMode()
    assert decide(model, tmp_path, speed, resume=True).mode == ExecutionMode()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"asked": null}'])
def test_a_damaged_record_is_benchmarked_again(tmp_path, tiny_model, measured, content):
    model = tiny_model(NAME)
    decide(model, tmp_path, AUTO)
    (tmp_path / execution.DECISION_FILE).write_text(content)
    assert decide(model, tmp_path, AUTO, resume=True).mode == measured.mode
    assert json.loads((tmp_path / execution.DECISION_FILE).read_text())["way"]["precision"] == "bf16"


def test_the_model_is_laid_out_so(tmp_path, tiny_model, measured):
    model = tiny_model(NAME)
    before = state_of(model)
    decide(model, tmp_path, AUTO)
    assert all(torch.equal(before[name], value) for name, value in state_of(model).items())
    weights = [weight for weight in model.parameters() if weight.ndim == 4 and weight.shape[1] > 1]
    assert weights and all(weight.is_contiguous(memory_format=torch.channels_last) for weight in weights)


def test_a_stage_is_trained_in_the_benchmarked_mode(tmp_path, tiny_model, measured):
    measured.mode = ExecutionMode("bf16")
    seen = []

    class See(TrainerCallback):
        def on_train_begin(self, args, state, control, **kwargs):
            seen.append((args.bf16, args.fp16, args.torch_compile))

    train_stages(tiny_model(NAME), tmp_path, ["last:1"], speed=AUTO, callbacks=[See()])
    assert seen == [(True, False, False)]
