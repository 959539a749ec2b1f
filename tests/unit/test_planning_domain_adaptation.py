"""Which stages have domain adaptation, and the rules between its fields."""

import pytest

from hf_finetune.errors import InputError
from hf_finetune.planning.domain_adaptation import domain_notes, domain_problems, is_aligned
from hf_finetune.planning.layers import Layout, Parameter
from hf_finetune.planning.stages import build_plan
from hf_finetune.recipe.domain import DomainSpec
from hf_finetune.recipe.load import parse_recipe

LAYOUT = Layout(
    tuple(Parameter(f"{group}.weight", 1, index) for index, group in enumerate(("low", "high", "head"))),
    ("low", "high", "head"),
)


def recipe(trains=("head", "last:1"), **domain):
    stages = [
        {"name": f"s{index}", "train": train, "epochs": index + 1, "lr": 0.1}
        for index, train in enumerate(trains)
    ]
    content = {"task": "text-classification", "model": "m", "data": "d", "stages": stages}
    return parse_recipe({**content, "domain_adaptation": {"target": "t", **domain}} if domain else content)


def aligned(made):
    stages = build_plan(LAYOUT, made.stages, 10).stages
    pairs = zip(made.stages, stages, strict=True)
    return [is_aligned(made.domain_adaptation, stage, plan) for stage, plan in pairs]


def told(made):
    return [str(each) for each in domain_problems(made, build_plan(LAYOUT, made.stages, 10))]


def refusal(**domain):
    with pytest.raises(InputError) as caught:
        recipe(**domain)
    return str(caught.value)


def test_every_stage_that_trains_below_the_head_aligns_unless_some_are_named():
    assert aligned(recipe(("head", "last:1", "all"), method="coral")) == [False, True, True]
    assert aligned(recipe(("head", "last:1", "all"), method="dann", stages=["s2"])) == [False, False, True]
    assert aligned(recipe(("all",), method="continue_pretraining")) == [False]
    assert aligned(recipe(("all",))) == [False]


def test_a_stage_that_trains_the_head_alone_cannot_align():
    assert told(recipe(method="coral", stages=["s0", "s1", "s3"])) == [
        "domain_adaptation.stages[0] must be a stage that trains layers below the head. Got 's0'. "
        "Domain alignment trains only layers below the head.",
        "domain_adaptation.stages[2] must be the name of a stage. Got 's3'. Known: 's0', 's1'.",
    ]
    assert told(recipe(("head",), method="dann")) == [
        "stages must train layers below the head for dann. "
        "Add a stage that trains them, for example train: last:1."
    ]
    assert told(recipe(("head",), method="continue_pretraining")) == told(recipe(("head",))) == []


def test_fields_of_other_methods_must_be_left_out():
    values = {"weight": 2.0, "stages": ["s1"], "epochs": 2.0, "max_steps": 3, "lr": 1e-3, "batch_size": 8}
    values |= {"mask": 0.3, "source": True}
    fields = {field for option in DomainSpec.options().values() for field in option.model_fields}
    assert values.keys() == fields - {"target", "method"}
    for field, value in values.items():
        owners = DomainSpec.options_with_field(field)
        method = "coral" if owners == ["continue_pretraining"] else "continue_pretraining"
        assert refusal(method=method, **{field: value}) == (
            f"domain_adaptation.{field} must not be set unless method is {' or '.join(owners)}. "
            f"Got {value!r}."
        )
        assert recipe(method=owners[0], **{field: value})


def test_epochs_and_steps_are_not_both_given():
    assert refusal(method="continue_pretraining", epochs=1.0, max_steps=4) == (
        "domain_adaptation must have either epochs (passes over the inputs) or max_steps (optimizer steps). "
        "Got epochs 1.0 and max_steps 4."
    )


def test_a_recipe_without_another_domain_has_no_note():
    made = recipe()
    assert domain_notes(made, build_plan(LAYOUT, made.stages, 10).stages, None) == []


def test_given_steps_are_shown():
    made = recipe(method="continue_pretraining", max_steps=70)
    assert domain_notes(made, (), 9) == [
        "Stage 0, pretraining, before stage 1: everything below the head learns to predict masked tokens in the 9 "
        "inputs of t, for 70 steps at lr 5e-05."
    ]
