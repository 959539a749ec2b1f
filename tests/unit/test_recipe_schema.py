"""The recipe's fields: descriptions, defaults, shorthands, names of stages."""

import pickle
from pathlib import Path

import pytest
from pydantic import ValidationError

from hf_finetune.fields.base import leaf_parts
from hf_finetune.recipe.adapter import AdapterSpec
from hf_finetune.recipe.balance import BalanceSpec
from hf_finetune.recipe.data import SplitSpec
from hf_finetune.recipe.evaluation import BestSpec, EarlyStoppingSpec
from hf_finetune.recipe.model import ModelSpec
from hf_finetune.recipe.schedule import ScheduleSpec, SchedulesSpec
from hf_finetune.recipe.schema import SingleTaskRecipe
from hf_finetune.recipe.stage_fields import OptimizerSpec, RatesSpec, StageSpec, StrategySpec

UNITS = (
    "examples",
    "bytes",
    "views",
    "steps",
    "pixels",
    "tokens",
    "fraction",
    "probability",
    "passes",
    "evaluations",
    "processes",
    "layer groups",
    "learning rate",
    "factor",
    "norm",
    "metric's unit",
    "hertz",
    "in seconds",
    "decibels",
    "events",
    "items",
    "candidates",
    "weeks",
    "of transformer layers",
    "no unit",
)


def recipe(**changes):
    fields = {
        "task": "image-classification",
        "model": "timm/resnet18.a1_in1k",
        "data": {"path": "photos-of-dishes"},
        "stages": [{"train": "head", "epochs": 1, "lr": 0.1}],
    }
    return SingleTaskRecipe(**{**fields, **changes})


def stages(*selectors, **fields):
    return [
        {"train": train, "epochs": index + 1, "lr": 0.1, **fields} for index, train in enumerate(selectors)
    ]


EVERY_SCHEDULE = {
    field: info.default
    for option in ScheduleSpec.options().values()
    for field, info in option.model_fields.items()
    if field != "name"
}


def all_fields():
    return [(part, name) for part in leaf_parts() for name in part.model_fields]


def test_the_parts_of_the_recipe_are_all_checked_below():
    assert len(leaf_parts()) == 58
    assert (StageSpec, "lr") in all_fields()


@pytest.mark.parametrize(("part", "name"), all_fields(), ids=lambda value: getattr(value, "__name__", value))
def test_every_field_has_a_description_with_its_unit(part, name):
    field = part.model_fields[name]
    description = field.description or ""
    assert description.endswith((".", "..."))
    if any(kind in str(field.annotation) for kind in ("int", "float")) and name != "args":
        assert any(unit in description.lower() for unit in UNITS), description


def test_task_model_data_and_one_stage_are_enough():
    made = recipe(data="photos-of-dishes")
    assert made.data.split == SplitSpec(validation=0.1, test=0.1, stratify=True, group=None)
    assert made.stages[0] == StageSpec(
        name="head",
        train="head",
        epochs=1.0,
        lr=0.1,
        optimizer=OptimizerSpec(name="adamw"),
        schedule=ScheduleSpec(name="linear", power=1.0),
        warmup=0,
        weight_decay=0.01,
        layer_decay=1.0,
        batch_size=32,
        accumulation=1,
        clip=1.0,
        label_smoothing=0.0,
        early_stopping=None,
        best=BestSpec(metric=None),
        carry_optimizer=False,
    )
    assert (made.metrics, made.evaluation.batch_size, made.speed.precision, made.seed) == ((), 64, "fp32", 0)


def test_shorthands_mean_the_full_forms():
    short = {"optimizer": "sgd", "schedule": "cosine", "early_stopping": 3, "best": "f1_macro"}
    made = recipe(model="gpt2", metrics="accuracy", stages=stages("head", **short))
    assert made.model == ModelSpec(path="gpt2")
    assert made.metrics == ("accuracy",)
    assert made.stages[0].optimizer == OptimizerSpec(name="sgd")
    assert made.stages[0].schedule == ScheduleSpec(name="cosine")
    assert made.stages[0].early_stopping == EarlyStoppingSpec(patience=3)
    assert made.stages[0].best == BestSpec(metric="f1_macro")


def test_a_rate_and_a_schedule_are_one_or_one_for_head_and_backbone_each():
    given = {"head": 1, "backbone": [1e-5, 1e-4]}
    shapes = {"head": "constant", "backbone": {"name": "polynomial", "power": 2}}
    made = recipe(stages=[{"train": "all", "epochs": 1, "lr": given, "schedule": shapes}]).stages[0]
    assert made.lr == RatesSpec(head=1.0, backbone=(1e-5, 1e-4))
    assert made.schedule == SchedulesSpec(
        head=ScheduleSpec(name="constant"), backbone=ScheduleSpec(name="polynomial", power=2.0)
    )
    assert recipe(stages=[made.model_dump()]).stages[0].lr == made.lr
    assert recipe(stages=[made]).stages[0].schedule == made.schedule
    assert repr(recipe().stages[0].lr) == "0.1"


def test_a_schedule_is_of_the_class_that_has_its_fields():
    step = ScheduleSpec(name="step", every=10)
    assert type(step) is ScheduleSpec.options()["step"] is type(ScheduleSpec.model_validate({"name": "step"}))
    assert step == recipe(stages=stages("head", schedule=step)).stages[0].schedule
    assert step == pickle.loads(pickle.dumps(step)) == step.model_copy()
    assert recipe(stages=stages("head", schedule=type(step)(every=10))).stages[0].schedule == step
    for name, option in ScheduleSpec.options().items():
        made = recipe(stages=stages("head", schedule={**EVERY_SCHEDULE, "name": name})).stages[0].schedule
        assert made == option() == ScheduleSpec(name=name), "defaults of other schedules have no effect"
    with pytest.raises(ValidationError):
        ScheduleSpec(name="cosine", power=2.0)


def test_a_schedule_and_a_balance_are_written_with_their_own_fields_only():
    made = recipe(stages=stages("head", schedule="step", balance={"method": "focal", "gamma": 1})).stages[0]
    assert made.schedule.model_dump() == {"name": "step", "every": 0.34, "factor": 0.1}
    assert made.balance.model_dump() == {"method": "focal", "weights": None, "gamma": 1.0}
    plain = recipe().stages[0].model_dump()
    assert (plain["schedule"], plain["balance"]) == ({"name": "linear"}, {"method": "none"})
    assert recipe(stages=[made.model_dump()]).stages[0] == made


def test_class_balancing_is_a_name_or_a_mapping():
    named, spelt = (
        recipe(stages=stages("head", "all", balance="class_weights")).stages[0].balance,
        {
            "method": "class_weights",
            "weights": {"soup": 3},
        },
    )
    assert named == BalanceSpec(method="class_weights")
    assert recipe(stages=stages("head", balance=spelt)).stages[0].balance.weights == {"soup": 3.0}
    numbered = {"method": "focal", "weights": {0: 1, "1": 2.5}}
    assert recipe(stages=stages("head", balance=numbered)).stages[0].balance.weights == {"0": 1.0, "1": 2.5}


def test_a_strategy_replaces_the_stages_and_has_defaults():
    short = recipe(stages=None, strategy="gradual_unfreeze")
    assert short == recipe(stages=[], strategy={"name": "gradual_unfreeze"})
    assert short.stages == ()
    assert short.strategy == StrategySpec(name="gradual_unfreeze", groups_per_stage=1, epochs=None, lr=None)
    assert set(StrategySpec.model_fields) == set(StageSpec.model_fields) - {
        "train",
        "compress",
        "fit",
        "seeds",
    }


def test_an_adapter_is_a_name_or_a_mapping():
    named = recipe(model={"path": "gpt2", "adapter": "lora"}).model.adapter
    assert named == AdapterSpec(type="lora", r=8, alpha=16, dropout=0.0, target=("auto",), save="merged")
    fields = {
        "type": "dora",
        "r": 4,
        "alpha": 4,
        "dropout": 0.1,
        "target": ["query", "/key$/"],
        "save": "both",
    }
    spelt = recipe(model={"path": "gpt2", "adapter": fields}).model.adapter
    assert spelt.model_dump() == {**fields, "target": ("query", "/key$/")}
    assert recipe(model={"path": "gpt2", "adapter": {"type": "ia3", "target": "key"}}).model.adapter == (
        AdapterSpec(type="ia3", target=("key",))
    )
    assert recipe().model.adapter is None


def test_python_may_pass_paths_and_parts():
    stage = StageSpec(train="head", epochs=1, lr=0.1)
    made = recipe(model=Path("models/mine"), data={"path": Path("photos")}, stages=[stage])
    assert (made.model.path, made.data.path) == ("models/mine", "photos")
    assert made.stages[0].name == "head"


def test_integral_floats_are_integers_and_nothing_else_is_converted():
    assert recipe(data={"path": "x", "limit": 1e3}).data.limit == 1000
    with pytest.raises(ValidationError):
        recipe(seed="1")
    with pytest.raises(ValidationError):
        recipe(seed=True)


def test_warmup_keeps_its_kind():
    assert repr(recipe(stages=stages("head", warmup=10)).stages[0].warmup) == "10"
    assert repr(recipe(stages=stages("head", warmup=0.1)).stages[0].warmup) == "0.1"


def test_optimizer_arguments_keep_their_kinds():
    arguments = {"momentum": 0.9, "nesterov": True, "betas": [0.9, 0.95], "foreach": "no", "steps": 1}
    made = recipe(stages=stages("head", optimizer={"name": "sgd", "args": arguments}))
    assert made.stages[0].optimizer.args == {**arguments, "betas": (0.9, 0.95)}
    assert made.stages[0].optimizer.args["nesterov"] is True
    assert type(made.stages[0].optimizer.args["steps"]) is int


@pytest.mark.parametrize(
    ("selector", "name"),
    [
        ("head", "head"),
        ("last:3", "last-3"),
        ("layers[8:]", "layers-8"),
        (["head", "norms"], "head-norms"),
        (r"/encoder\.layer\.1[01]\./", "encoder-layer-1-01"),
        ("/^.*$/", "stage"),
        (f"/{'long' * 30}/", "long" * 10),
    ],
)
def test_a_stage_is_named_after_its_selector(selector, name):
    made = recipe(stages=stages(selector))
    assert made.stages[0].name == name
    assert recipe(stages=[made.stages[0].model_dump()]) == made, (
        "a made name must be one that a recipe may give"
    )


def test_made_names_are_unique():
    given = [*stages("layers[:4]", "layers[4:]", "layers[4]"), {"name": "layers-4", **stages("all")[0]}]
    assert [stage.name for stage in recipe(stages=given).stages] == [
        "layers-4-2",
        "layers-4-3",
        "layers-4-4",
        "layers-4",
    ]


def test_a_recipe_does_not_change():
    with pytest.raises(ValidationError, match="frozen"):
        recipe().seed = 1


def test_rules_between_fields_hold_in_python_too():
    with pytest.raises(ValidationError, match=r"stages\[1\] must differ from the previous stage"):
        recipe(stages=[*stages("head"), *stages("head", name="again")])
