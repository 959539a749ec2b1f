"""The plan of a recipe's stages, and its count of steps against that of the Trainer."""

import pytest
import torch
from transformers import Trainer, TrainingArguments

from hf_finetune.errors import InputError
from hf_finetune.planning.layers import Layout, Parameter
from hf_finetune.planning.stages import build_plan, steps_per_epoch
from hf_finetune.recipe.stage_fields import StageSpec

LAYOUT = Layout(
    parameters=(
        Parameter("conv.weight", 9, 0),
        Parameter("bn.weight", 3, 0, is_norm=True, decays=False),
        Parameter("bn.bias", 3, 0, is_norm=True, decays=False),
        Parameter("block.weight", 9, 1),
        Parameter("block.bn.weight", 3, 1, is_norm=True, decays=False),
        Parameter("fc.weight", 6, 2),
    ),
    groups=("input", "block", "head"),
    batch_norms=(("bn", 0), ("block.bn", 1)),
)


def stage(**fields):
    return StageSpec.model_validate({"name": "one", "train": "head", "epochs": 2.0, "lr": 0.1, **fields})


def test_a_stage_plans_its_parameters_and_steps():
    plan = build_plan(
        LAYOUT,
        [
            stage(batch_size=4, accumulation=2, warmup=0.25),
            stage(name="two", train=["last:1"], weight_decay=0.02, epochs=0.5, warmup=7),
            stage(name="three", train="all", epochs=None, max_steps=30),
        ],
        examples=50,
    )
    assert plan.layout is LAYOUT
    head, last, everything = plan.stages
    assert (head.name, head.train, head.trainable, head.trainable_size) == ("one", "head", ("fc.weight",), 6)
    assert (head.epochs, head.steps, head.warmup_steps) == (2.0, 14, 4)
    assert head.frozen_batch_norms == ("bn", "block.bn")
    assert [(group.layers, group.lr, group.weight_decay) for group in head.groups] == [("head", 0.1, 0.01)]
    assert (last.train, last.trainable_size, last.frozen_batch_norms) == ("last:1", 18, ("bn",))
    assert (last.steps, last.warmup_steps) == (1, 7)
    assert [(group.weight_decay, group.size) for group in last.groups] == [(0.02, 15), (0.0, 3)]
    assert (everything.steps, everything.epochs, everything.frozen_batch_norms) == (30, 15.0, ())


def test_without_the_data_the_steps_are_not_known():
    by_epochs, by_steps = build_plan(
        LAYOUT,
        [stage(warmup=0.5), stage(name="two", epochs=None, max_steps=8, warmup=0.3)],
    ).stages
    assert (by_epochs.epochs, by_epochs.steps, by_epochs.warmup_steps) == (2.0, None, None)
    assert (by_steps.epochs, by_steps.steps, by_steps.warmup_steps) == (None, 8, 3)


def test_all_problems_of_all_stages_are_reported_with_their_location():
    with pytest.raises(InputError) as caught:
        build_plan(
            LAYOUT, [stage(train="last:3"), stage(name="two"), stage(name="three"), stage(train="/blok/")]
        )
    assert str(caught.value) == (
        "stages[0].train must select between 1 and 2 layer groups, the number in this model. Got 'last:3'. "
        "For no layer group use 'head', for the whole model 'all'.\n"
        "stages[2] must differ from the previous stage. Got 'head'. "
        "Increase the epochs of the previous stage, or change this one.\n"
        "stages[3].train must match at least one parameter. Got '/blok/'. Nearest: 'block'."
    )


def test_the_optimizer_state_of_common_parameters_is_carried():
    fields = {"carry_optimizer": True}
    stages = [stage(), stage(train="last:1", **fields), stage(train=["head", "norms"], **fields)]
    head, last, norms = build_plan(LAYOUT, stages).stages
    assert (head.carried, last.carried) == ((), ("fc.weight",))
    assert norms.carried == ("block.bn.weight", "fc.weight")
    assert build_plan(LAYOUT, [stage(), stage(train="all")]).stages[1].carried == ()


def test_a_stage_with_nothing_to_carry_is_an_error():
    with pytest.raises(InputError) as caught:
        build_plan(LAYOUT, [stage(), stage(train="layers[0]", carry_optimizer=True)])
    assert str(caught.value) == (
        "stages[1].carry_optimizer must not be set unless the stage trains parameters of the previous "
        "stage. Got 'head' and then 'layers[0]'."
    )


def test_a_stage_has_the_schedules_of_its_groups():
    fields = {"head": "constant", "backbone": {"name": "polynomial", "power": 2.0}}
    groups = build_plan(LAYOUT, [stage(train="all", weight_decay=0, schedule=fields)]).stages[0].groups
    assert [(group.layers, group.schedule.name) for group in groups] == [
        ("head", "constant"),
        ("input..block", "polynomial"),
    ]


class Counted(torch.utils.data.Dataset):
    def __init__(self, length):
        self.length = length

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        return {"x": torch.ones(1), "labels": torch.zeros(1)}


class Line(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.slope = torch.nn.Parameter(torch.ones(1))

    def forward(self, x, labels):
        return {"loss": ((x * self.slope - labels) ** 2).mean()}


@pytest.mark.parametrize(
    ("examples", "batch_size", "accumulation", "epochs"),
    [
        (10, 4, 1, 1),
        (12, 4, 1, 2),
        (10, 4, 2, 2),
        (10, 4, 4, 3),
        (3, 8, 1, 1),
        (3, 1, 8, 1),
        (17, 2, 4, 1.5),
        (9, 3, 2, 0.5),
    ],
)
def test_the_trainer_runs_the_planned_number_of_steps(tmp_path, examples, batch_size, accumulation, epochs):
    trainer = Trainer(
        model=Line(),
        train_dataset=Counted(examples),
        args=TrainingArguments(
            output_dir=str(tmp_path),
            num_train_epochs=epochs,
            per_device_train_batch_size=batch_size,
            gradient_accumulation_steps=accumulation,
            save_strategy="no",
            dataloader_pin_memory=False,
            report_to="none",
            disable_tqdm=True,
        ),
    )
    trainer.train()
    spec = stage(epochs=float(epochs), batch_size=batch_size, accumulation=accumulation)
    assert build_plan(LAYOUT, [spec], examples).stages[0].steps == trainer.state.global_step
    if epochs == 1:
        assert steps_per_epoch(examples, batch_size, accumulation) == trainer.state.global_step


def test_processes_share_the_batches_of_an_epoch():
    assert steps_per_epoch(17, 4, 1, processes=2) == 3
    assert steps_per_epoch(17, 4, 2, processes=2) == 2
    assert steps_per_epoch(2, 4, 1, processes=2) == 1


ADAPTED = Layout(
    parameters=(
        *LAYOUT.parameters[:5],
        Parameter("block.lora_A.default.weight", 4, 1, is_adapter=True),
        LAYOUT.parameters[5],
    ),
    groups=LAYOUT.groups,
    batch_norms=LAYOUT.batch_norms,
    adapter="lora",
)


def test_an_adapter_stage_trains_the_adapter_and_the_head():
    (plan,) = build_plan(ADAPTED, [stage(train="lora")]).stages
    assert plan.trainable == ("block.lora_A.default.weight", "fc.weight")
    assert (plan.trainable_size, ADAPTED.size, plan.frozen_batch_norms) == (10, 37, ("bn", "block.bn"))
    assert [(group.layers, group.lr, group.size) for group in plan.groups] == [
        ("head", 0.1, 6),
        ("lora in block", 0.1, 4),
    ]


def test_an_adapter_that_no_stage_trains_is_an_error():
    for trained in ("lora", "adapter", "all", "/lora_A/"):
        assert build_plan(ADAPTED, [stage(), stage(name="two", train=trained)])
    with pytest.raises(InputError) as caught:
        build_plan(ADAPTED, [stage(), stage(name="two", train=["last:1", "norms"])])
    assert str(caught.value) == (
        "model.adapter must be trained by a stage. Got 'lora'. Add or change a stage: train: lora."
    )
