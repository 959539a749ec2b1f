"""Stages that fit their head: their fields, and the messages for other fields."""

import pytest

from hf_finetune.errors import InputError
from hf_finetune.recipe.head_fit import head_fit_problems, solver_of, uses_checkpoint_pooling
from hf_finetune.recipe.load import dump_recipe, parse_recipe
from hf_finetune.recipe.stage_fields import OptimizerSpec, StageSpec, StrategySpec
from hf_finetune.recipe.yaml_text import read_yaml
from hf_finetune.runs.expand import write_stages

FITTED = {"train": "head", "fit": "logistic_regression"}
AFTER = {"train": "all", "epochs": 1, "lr": 1e-4}
AT_ONCE = "A solver fits the head, without optimizer steps."


def recipe(**changes):
    return {"task": "text-classification", "model": "some/checkpoint", "data": "reviews.csv", **changes}


def complaint(**changes):
    with pytest.raises(InputError) as caught:
        parse_recipe(recipe(**changes))
    return str(caught.value)


def test_a_stage_that_fits_needs_neither_length_nor_rate_and_is_read_again_as_it_is_written():
    made = parse_recipe(recipe(stages=[FITTED, AFTER]))
    first, second = made.stages
    assert (first.fit, first.epochs, first.max_steps, first.lr) == ("logistic_regression", None, None, None)
    assert second.fit == "gradient" and solver_of(second) == "" and solver_of(first) == "logistic_regression"
    assert parse_recipe(read_yaml(dump_recipe(made), "recipe")[0]) == made


def test_a_stage_that_does_not_fit_needs_a_length():
    assert complaint(stages=[{"train": "head"}]).splitlines() == [
        "stages[0] must have either epochs (passes over the training split) or max_steps (optimizer steps). Got "
        "neither.",
    ]


@pytest.mark.parametrize(
    ("field", "value", "shown"),
    [
        ("epochs", 2, "2.0"),
        ("lr", 0.1, "0.1"),
        ("optimizer", "sgd", "'sgd'"),
        ("schedule", "cosine", "'cosine'"),
        ("accumulation", 2, "2"),
        ("label_smoothing", 0.1, "0.1"),
        ("teacher", "runs/large", "'runs/large'"),
        ("best", "accuracy", "'accuracy'"),
        ("early_stopping", 2, "2"),
        ("weight_decay", 0.5, "0.5"),
        ("layer_decay", 0.5, "0.5"),
    ],
)
def test_a_field_of_training_in_steps_is_refused_where_there_are_none(field, value, shown):
    rule = "must not be set when fit is logistic_regression"
    assert complaint(stages=[{**FITTED, field: value}]) == f"stages[0].{field} {rule}. Got {shown}. {AT_ONCE}"


@pytest.mark.parametrize("method", ["sampler", "focal"])
def test_a_balance_of_steps_is_refused_where_there_are_none(method):
    rule = "must be none, class_weights, effective_number or logit_adjustment when fit is logistic_regression"
    said = complaint(stages=[{**FITTED, "balance": method}])
    assert said == f"stages[0].balance {rule}. Got {method!r}. {AT_ONCE}"


def test_fields_that_have_a_meaning_without_steps_are_taken():
    fields = {"batch_size": 5, "name": "probe", "compress": 0.2, "balance": "class_weights"}
    stage = parse_recipe(recipe(stages=[{**FITTED, **fields}])).stages[0]
    assert (stage.batch_size, stage.name, stage.balance.method) == (5, "probe", "class_weights")


def test_only_the_head_is_fitted():
    expected = "stages[0].train must be head when fit is ridge. Got 'last:1'."
    assert complaint(stages=[{"train": "last:1", "fit": "ridge"}]) == expected


def test_no_optimizer_state_can_be_carried_from_a_fitted_head():
    said = complaint(stages=[FITTED, {**AFTER, "carry_optimizer": True}])
    assert said == "stages[1].carry_optimizer must not be set after a stage without an optimizer. Got true."


def test_the_strategy_writes_a_stage_that_fits():
    strategy = parse_recipe(recipe(strategy="features")).strategy
    assert write_stages(strategy, 3) == (StageSpec(name="head", train="head", fit="logistic_regression"),)
    ridge = StrategySpec(name="features", classifier="ridge", batch_size=7)
    assert write_stages(ridge, 3) == (StageSpec(name="head", train="head", fit="ridge", batch_size=7),)


def test_the_strategy_writes_a_stage_of_sgd_for_many_epochs():
    short = write_stages(StrategySpec(name="features", classifier="sgd"), 3)
    assert short == (
        StageSpec(name="head", train="head", epochs=20.0, lr=1e-2, optimizer=OptimizerSpec(name="sgd")),
    )
    usual = parse_recipe(
        recipe(strategy={"name": "features", "classifier": "sgd", "optimizer": "adamw", "lr": None})
    )
    (stage,) = write_stages(usual.strategy, 3)
    assert (stage.optimizer.name, stage.lr) == ("adamw", 1e-2)  # set to the default of other stages
    left_out = parse_recipe(recipe(strategy={"name": "features", "classifier": "sgd"}))
    again = parse_recipe(left_out.model_dump(mode="json"))
    assert write_stages(again.strategy, 3) == write_stages(left_out.strategy, 3) == short
    adam = OptimizerSpec(name="adam")
    given = StrategySpec(
        name="features", classifier="sgd", max_steps=9, lr=0.5, optimizer=adam, schedule="cosine"
    )
    (stage,) = write_stages(given, 3)
    assert (stage.epochs, stage.max_steps, stage.lr, stage.optimizer) == (None, 9, 0.5, adam)
    assert stage.schedule.name == "cosine"


@pytest.mark.parametrize(
    ("strategy", "expected"),
    [
        (
            {"name": "features", "epochs": 3},
            f"strategy.epochs must not be set when classifier is logistic_regression. Got 3.0. {AT_ONCE}",
        ),
        (
            {"name": "features", "classifier": "ridge", "lr": 0.1},
            f"strategy.lr must not be set when classifier is ridge. Got 0.1. {AT_ONCE}",
        ),
        (
            {"name": "features", "classifier": "sgd", "groups_per_stage": 2},
            "strategy.groups_per_stage must not be set unless name is gradual_unfreeze. Got 2.",
        ),
        (
            {"name": "gradual_unfreeze", "classifier": "sgd"},
            "strategy.classifier must not be set unless name is features. Got 'sgd'.",
        ),
    ],
)
def test_messages_for_strategies(strategy, expected):
    assert complaint(strategy=strategy) == expected


def test_the_method_must_suit_the_labels():
    assert head_fit_problems("", "regression", "x") == head_fit_problems("ridge", "regression", "x") == []
    assert head_fit_problems("logistic_regression", "multi_label", "x") == []
    (one,) = head_fit_problems("logistic_regression", "regression", "strategy.classifier")
    assert (
        str(one)
        == "strategy.classifier must be ridge for the label type regression. Got 'logistic_regression'."
    )
    (other,) = head_fit_problems("ridge", "single_label", "stages[0].fit")
    assert (
        str(other)
        == "stages[0].fit must be logistic_regression for the label type single_label. Got 'ridge'."
    )


def test_auto_needs_a_length_and_the_head():
    assert solver_of(parse_recipe(recipe(stages=[{**AFTER, "train": "head", "fit": "auto"}])).stages[0]) == ""
    assert (
        complaint(stages=[{**AFTER, "fit": "auto"}])
        == "stages[0].train must be head when fit is auto. Got 'all'."
    )


OPEN = {"train": "all", "epochs": 1}


def model(**fields):
    return {"model": {"path": "some/checkpoint", **fields}}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"stages": [OPEN]}, True),
        ({"stages": [FITTED, OPEN]}, True),
        ({"stages": [{**OPEN, "train": "head", "fit": "auto"}, OPEN]}, True),
        ({"stages": [AFTER]}, False),
        ({"stages": [OPEN, AFTER]}, False),
        ({"stages": [FITTED]}, False),  # its run compares the poolings
        ({"strategy": "features"}, False),
        ({"strategy": "gradual_unfreeze"}, False),
        ({"stages": [OPEN], **model(head={"pool": "own"})}, False),
        ({"stages": [OPEN], **model(head="mlp")}, False),
        ({"stages": [OPEN], **model(adapter="lora")}, False),
    ],
)
def test_the_pooling_is_left_to_the_checkpoint_where_neither_it_nor_a_rate_is_stated(changes, expected):
    assert uses_checkpoint_pooling(parse_recipe(recipe(**changes))) is expected
