"""The stages that a strategy writes."""

import pytest

from hf_finetune.recipe.stage_fields import StageSpec, StrategySpec
from hf_finetune.runs.expand import write_stages


def strategy(**fields):
    return StrategySpec.model_validate({"name": "gradual_unfreeze", **fields})


@pytest.mark.parametrize(
    ("layer_groups", "step", "selectors"),
    [
        (4, 1, ["head", "last:1", "last:2", "last:3", "all"]),
        (5, 2, ["head", "last:2", "last:4", "all"]),
        (4, 2, ["head", "last:2", "all"]),
        (3, 3, ["head", "all"]),
        (3, 9, ["head", "all"]),
        (1, 1, ["head", "all"]),
        (0, 1, ["head"]),
    ],
)
def test_each_stage_trains_some_layer_groups_more_and_the_last_all(layer_groups, step, selectors):
    stages = write_stages(strategy(groups_per_stage=step), layer_groups)
    assert [stage.train for stage in stages] == selectors
    assert [stage.name for stage in stages] == [selector.replace(":", "-") for selector in selectors]


def test_the_defaults_are_one_epoch_each_and_those_of_a_stage():
    head, everything = write_stages(strategy(), 1)
    assert head == StageSpec(name="head", train="head", epochs=1.0)
    assert everything == StageSpec(name="all", train="all", epochs=1.0)


def test_with_an_optimizer_that_no_architecture_has_a_rate_for_every_stage_has_the_same():
    stages = write_stages(strategy(optimizer="sgd"), 1)
    assert [stage.lr for stage in stages] == [1e-3, 1e-3]


def test_every_field_of_a_stage_is_passed_on():
    fields = {
        "max_steps": 7,
        "lr": {"head": 0.1, "backbone": (1e-5, 1e-4)},
        "optimizer": {"name": "sgd", "args": {"momentum": 0.5}},
        "schedule": {"head": "constant", "backbone": "cosine"},
        "warmup": 0.1,
        "weight_decay": 0.2,
        "batch_size": 3,
        "accumulation": 2,
        "clip": None,
        "label_smoothing": 0.1,
        "balance": {"method": "sampler"},
        "regularize": {"l1": 0.01, "ema": 0.9},
        "teacher": {"path": "runs/large", "weight": 0.3},
        "early_stopping": 2,
        "best": None,
    }
    stages = write_stages(strategy(**fields), 2)
    for stage in stages:
        wanted = StageSpec.model_validate({"name": stage.name, "train": stage.train, **fields})
        assert stage == wanted
    others = {"name", "train", "epochs", "layer_decay", "carry_optimizer", "compress", "fit", "seeds"}
    assert set(StageSpec.model_fields) == {*fields, *others}, "pass on the new field too, and name it here"
    assert {stage.layer_decay for stage in write_stages(strategy(layer_decay=0.5), 2)} == {0.5}
    assert {stage.epochs for stage in write_stages(strategy(epochs=0.5), 2)} == {0.5}


def test_the_first_stage_has_no_optimizer_state_to_carry():
    stages = write_stages(strategy(carry_optimizer=True), 2)
    assert [stage.carry_optimizer for stage in stages] == [False, True, True]
