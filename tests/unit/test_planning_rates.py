"""Default learning rates, and rates that are far from the default."""

from dataclasses import replace

import pytest

from hf_finetune.planning.layers import Layout, Parameter
from hf_finetune.planning.rates import (
    PARAMETER_EFFICIENT_RATES,
    Defaults,
    fill_learning_rates,
    fill_selectors,
    rate_notes,
)
from hf_finetune.recipe.stage_fields import StageSpec

DEFAULTS = Defaults("Net", 1e-4, 0.8, "a paper", "a paper", head_lr=1e-2, pooling="mean")
PARAMETERS = (
    Parameter("embed.weight", 8, 0),
    Parameter("layer.weight", 4, 1),
    Parameter("layer.bias", 2, 1, decays=False),
    Parameter("norm.weight", 2, 1, is_norm=True, decays=False),
    Parameter("fc.weight", 6, 2),
)
LAYOUT = Layout(PARAMETERS, ("input", "layer", "head"))


def stage(train, **fields):
    return StageSpec.model_validate({"train": train, "epochs": 1, **fields})


def adapted(kind):
    adapter = Parameter(f"layer.{kind}.weight", 2, 1, is_adapter=True)
    return Layout((*PARAMETERS[:-1], adapter, PARAMETERS[-1]), LAYOUT.groups, adapter=kind)


@pytest.mark.parametrize(
    ("depth", "wanted"), [("all", "all"), ("last:1", "last:1"), ("last:2", "all"), ("last:6", "all")]
)
def test_a_stage_that_leaves_its_depth_open_has_that_of_the_architecture(depth, wanted):
    stages = [stage("head"), stage("auto"), stage("/embed/"), stage("auto", epochs=2)]
    filled, notes = fill_selectors(stages, LAYOUT, replace(DEFAULTS, train=depth))
    assert [one.train for one in filled] == ["head", wanted, "/embed/", wanted]
    assert [one.epochs for one in filled] == [1, 1, 1, 2]
    assert notes == (f"stages[1, 3].train is {wanted}: default of Net.",)


def test_a_stage_that_leaves_its_depth_open_trains_the_adapter_where_there_is_one():
    filled, notes = fill_selectors([stage("auto")], adapted("lora"), DEFAULTS)
    assert filled[0].train == "lora" and notes == ("stages[0].train is lora: the model's adapter.",)


def test_an_explicit_depth_is_kept():
    stages = (stage("head"), stage("last:1"))
    assert fill_selectors(stages, LAYOUT, DEFAULTS) == (stages, ())


@pytest.mark.parametrize(
    ("train", "lr", "decay", "words"),
    [
        ("head", 1e-2, 1.0, "of Net for a stage that trains the head alone"),
        ("all", 1e-4, 0.8, "of Net for a stage that trains the backbone"),
        ("last:1", 1e-4, 0.8, "of Net for a stage that trains the backbone"),
        ("/embed/", 1e-4, 0.8, "of Net for a stage that trains the backbone"),
        ("norms", 1e-3, 1.0, "for a stage that trains norms or biases"),
        (["head", "biases"], 1e-3, 1.0, "for a stage that trains norms or biases"),
    ],
)
def test_a_stage_without_a_rate_has_that_of_what_it_trains(train, lr, decay, words):
    (filled,), (note,) = fill_learning_rates([stage(train)], LAYOUT, DEFAULTS)
    assert (filled.lr, filled.layer_decay) == (lr, decay)
    and_decay = ", layer_decay 0.8" if decay == 0.8 else ""
    assert note == f"stages[0].lr is {lr:g}{and_decay}: default {words}."
    assert rate_notes([filled], LAYOUT, DEFAULTS) == ()


@pytest.mark.parametrize(("kind", "lr"), [("lora", 5e-4), ("dora", 3e-4), ("ia3", 3e-3)])
def test_an_adapter_has_its_own_rate_unless_the_backbone_is_trained_with_it(kind, lr):
    stages = [stage("adapter"), stage("all")]
    filled, notes = fill_learning_rates(stages, adapted(kind), DEFAULTS)
    assert [(one.lr, one.layer_decay) for one in filled] == [(lr, 1.0), (1e-4, 0.8)]
    assert notes[0].endswith(f"for a stage that trains {PARAMETER_EFFICIENT_RATES[kind].part}.")


def test_stages_with_one_rate_are_named_together():
    _, notes = fill_learning_rates([stage("head"), stage("last:1"), stage("all")], LAYOUT, DEFAULTS)
    assert [note.split(":")[0] for note in notes] == [
        "stages[0].lr is 0.01",
        "stages[1, 2].lr is 0.0001, layer_decay 0.8",
    ]


def test_given_rates_are_kept():
    given = [stage("all", lr=3e-4), stage("all", lr={"head": 1e-3, "backbone": 1e-4}), stage("head", lr=0.05)]
    filled, notes = fill_learning_rates(given, LAYOUT, DEFAULTS)
    assert [one.lr for one in filled] == [one.lr for one in given]
    assert ([one.layer_decay for one in filled], notes) == ([1.0, 1.0, 1.0], ())
    (decayed,), (note,) = fill_learning_rates([stage("all", layer_decay=0.5)], LAYOUT, DEFAULTS)
    assert note.startswith("stages[0].lr is 0.0001: default")
    assert (decayed.lr, decayed.layer_decay) == (1e-4, 0.5)
    (written,), again = fill_learning_rates([decayed], LAYOUT, DEFAULTS)
    assert (written, again) == (decayed, ())


def test_a_head_that_is_fitted_at_once_needs_no_rate_and_a_wrong_selector_is_left_to_the_plan():
    fitted = StageSpec(train="head", fit="logistic_regression")
    wrong = stage("/nothing/")
    filled, notes = fill_learning_rates([fitted, wrong], LAYOUT, DEFAULTS)
    assert ([one.lr for one in filled], notes) == ([None, None], ())
    assert rate_notes([fitted, wrong.model_copy(update={"lr": 9.0})], LAYOUT, DEFAULTS) == ()


@pytest.mark.parametrize(
    ("train", "lr", "words"),
    [
        ("all", 2e-3, "0.002, 20 times the default of Net for a stage that trains the backbone (0.0001)."),
        ("all", 5e-6, "5e-06, 1/20 of the default of Net for a stage that trains the backbone (0.0001)."),
        ("head", 5e-4, "0.0005, 1/20 of the default of Net for a stage that trains the head alone (0.01)."),
        ("norms", 0.02, "0.02, 20 times the default for a stage that trains norms or biases (0.001)."),
    ],
)
def test_a_rate_that_is_far_from_the_default_is_pointed_out(train, lr, words):
    (note,) = rate_notes([stage(train, lr=lr)], LAYOUT, DEFAULTS)
    assert note.startswith(f"stages[0].lr is {words}")
    assert note.endswith("Remove lr, or choose a value closer to the default, unless this is intended.")


def test_rates_of_head_and_backbone_are_reported_separately():
    given = stage("all", lr={"head": 1.0, "backbone": [1e-9, 1e-3]})
    (note,) = rate_notes([given], LAYOUT, DEFAULTS)
    assert note.startswith("stages[0].lr.head is 1, 100 times the default of Net for the head (0.01).")
    (note,) = rate_notes([stage("all", lr={"head": 0.01, "backbone": 0.01})], LAYOUT, DEFAULTS)
    assert note.startswith(
        "stages[0].lr.backbone is 0.01, 100 times the default of Net for a stage that trains the backbone (0.0001)."
    )


@pytest.mark.parametrize("lr", [1e-3, 1e-5, 1e-4])
def test_a_rate_within_ten_times_of_the_default_is_not(lr):
    assert rate_notes([stage("all", lr=lr)], LAYOUT, DEFAULTS) == ()


@pytest.mark.parametrize(
    ("optimizer", "notes"), [("adam", 1), ("adamw_torch", 1), ("sgd", 0), ("lion_32bit", 0)]
)
def test_only_rates_of_adamw_are_compared(optimizer, notes):
    assert len(rate_notes([stage("all", lr=1.0, optimizer=optimizer)], LAYOUT, DEFAULTS)) == notes


def test_the_rate_of_a_strategy_is_pointed_out_once_for_each_default_that_it_is_far_from():
    stages = [stage("head", lr=1.0), stage("last:1", lr=1.0), stage("all", lr=1.0)]
    notes = rate_notes(stages, LAYOUT, DEFAULTS, "strategy.lr")
    assert [note.split(",")[0] for note in notes] == ["strategy.lr is 1", "strategy.lr is 1"]
