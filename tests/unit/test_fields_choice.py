"""Parts of a recipe with one class per value of a field, and old recipes that list the fields of all classes."""

# ruff: noqa: E501 (error texts are tested whole)

import pickle

import pytest
from pydantic import ValidationError

from hf_finetune.errors import InputError
from hf_finetune.fields.base import leaf_parts
from hf_finetune.fields.choice import Choice
from hf_finetune.recipe.adapter import AdapterSpec
from hf_finetune.recipe.domain import DomainSpec
from hf_finetune.recipe.head import HeadSpec
from hf_finetune.recipe.load import json_schema, parse_recipe
from hf_finetune.recipe.mixing import MixingSpec
from hf_finetune.recipe.stage_fields import StrategySpec

CHOICES = {part.union() for part in leaf_parts() if issubclass(part, Choice)}
STAGE = {"name": "all", "train": "all", "epochs": 1.0, "lr": 0.1}
SINGLE = {"task": "text-classification", "model": {"path": "m"}, "data": "d", "stages": [STAGE]}
SEVERAL = {
    **{"task": "multi-task", "model": "m", "stages": [STAGE]},
    "tasks": {name: {"task": "text-classification", "data": name} for name in ("a", "b")},
}

HEAD = {"hidden": [1024], "activation": None, "dropout": 0.2, "pool": None, "layers": None, "bias": None}
ADAPTER = {"r": 8, "alpha": 16, "dropout": 0.0, "target": ["auto"], "save": "merged"}
DOMAIN = {"weight": 1.0, "stages": [], "epochs": None, "max_steps": None, "lr": 5e-5, "batch_size": 32}
DOMAIN |= {"mask": None, "source": False}
STRATEGY = {"groups_per_stage": 1, "classifier": "logistic_regression", "epochs": None}
"""Fields with their defaults, all of which recipes of version 0.1.0 list, whatever the value of the discriminator."""

OLD = [
    *((HeadSpec, {"type": name, **HEAD}) for name in ("linear", "mlp", "cosine")),
    *((AdapterSpec, {"type": name, **ADAPTER}) for name in ("lora", "dora", "ia3")),
    *((DomainSpec, {"target": "t", "method": name, **DOMAIN}) for name in DomainSpec.options()),
    *((StrategySpec, {"name": name, **STRATEGY}) for name in ("gradual_unfreeze", "features")),
    *((MixingSpec, {"method": name, "temperature": 2.0}) for name in ("size", "temperature", "equal")),
]


def recipe_with(base, spec):
    if base is MixingSpec:
        return {**SEVERAL, "mixing": spec}
    if base is StrategySpec:
        return {**SINGLE, "stages": None, "strategy": spec}
    if base is DomainSpec:
        return {**SINGLE, "domain_adaptation": spec}
    return {**SINGLE, "model": {"path": "m", "head" if base is HeadSpec else "adapter": spec}}


def part_of(base, recipe):
    if base is MixingSpec:
        return recipe.mixing
    if base is StrategySpec:
        return recipe.strategy
    if base is DomainSpec:
        return recipe.domain_adaptation
    return recipe.model.head if base is HeadSpec else recipe.model.adapter


def test_the_old_recipes_below_have_every_field_of_the_parts():
    for base, spec in OLD:
        listed = {field for option in base.options().values() for field in option.model_fields}
        assert spec.keys() == listed if base is not StrategySpec else spec.keys() < listed


@pytest.mark.parametrize(("base", "spec"), OLD, ids=lambda value: str(value)[:60])
def test_an_old_recipe_with_the_fields_of_all_classes_is_loaded_and_written_without_them(base, spec):
    recipe = parse_recipe(recipe_with(base, spec))
    part, option = part_of(base, recipe), base.options()[spec[base.discriminator]]
    given = {field: value for field, value in spec.items() if field in ("target", base.discriminator)}
    assert type(part) is option and part == base(**given), "each field has its default"
    written = part.model_dump(mode="json")
    assert written.keys() == option.model_fields.keys()
    assert written == {**written, **{field: spec[field] for field in written.keys() & spec.keys()}}
    assert parse_recipe(recipe.model_dump(mode="json")) == recipe


@pytest.mark.parametrize(
    "base", sorted(CHOICES, key=lambda base: base.__name__), ids=lambda base: base.__name__
)
def test_the_schema_describes_every_field_of_every_class(base):
    schemas = json_schema()["$defs"]
    for option in base.options().values():
        schema = schemas[option.__name__]
        fields = schema.get("anyOf", [schema])[-1]["properties"]
        assert fields.keys() == option.model_fields.keys()
        assert all(field["description"] for field in fields.values())


@pytest.mark.parametrize(("base", "spec"), OLD, ids=lambda value: str(value)[:60])
def test_a_part_survives_pickling(base, spec):
    part = base.model_validate(spec)
    assert pickle.loads(pickle.dumps(part)) == part == part.model_copy()
    assert type(pickle.loads(pickle.dumps(part))) is type(part)


def refusal(base, spec):
    with pytest.raises(InputError) as caught:
        parse_recipe(recipe_with(base, spec))
    return str(caught.value).splitlines()


@pytest.mark.parametrize(
    ("base", "spec", "expected"),
    [
        (HeadSpec, {"type": "linear", "hidden": [8]}, ["model.head.hidden must not be set unless type is mlp. Got [8]."]),
        (AdapterSpec, {"type": "ia3", "r": 4}, ["model.adapter.r must not be set unless type is lora or dora. Got 4."]),
        (AdapterSpec, {"type": "lore", "r": 0}, ["model.adapter.type must be 'lora', 'dora' or 'ia3'. Got 'lore'. Nearest: 'lora'.", "model.adapter.r must be at least 1. Got 0."]),
        (DomainSpec, {"target": "t", "method": "coral", "mask": 0.2}, ["domain_adaptation.mask must not be set unless method is continue_pretraining. Got 0.2."]),
        (DomainSpec, {"target": "t", "method": "coral", "wight": 2.0}, ["domain_adaptation.wight must be a known field. Nearest: 'weight'."]),
        (DomainSpec, "coral", ["domain_adaptation must be a mapping of fields. Got 'coral'."]),
        (DomainSpec, {"target": "t", "method": "mmd", "weight": 2.0}, ["domain_adaptation.method must be 'continue_pretraining', 'coral' or 'dann'. Got 'mmd'."]),
        (DomainSpec, {"target": "t", "weight": 2.0}, [f"domain_adaptation.method must be set. {DomainSpec.meaning()}"]),
        (StrategySpec, {"name": "features", "groups_per_stage": 2}, ["strategy.groups_per_stage must not be set unless name is gradual_unfreeze. Got 2."]),
        (MixingSpec, {"temperature": 3.0}, ["mixing.temperature must not be set unless method is temperature. Got 3.0."]),
    ],
)  # fmt: skip
def test_a_field_of_another_class_is_refused(base, spec, expected):
    assert refusal(base, spec) == expected


def test_an_unknown_field_is_refused_in_python_too():
    with pytest.raises(ValidationError):
        HeadSpec(type="linear", hidden=(8,))
