"""Search space of `tune`: fields with ranges or listed values, checked before anything is trained."""

import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from hf_finetune.errors import InputError
from hf_finetune.recipe.load import parse_recipe
from hf_finetune.search.space import Choices, Range, read_space, split_arguments


def recipe(**changes):
    stages = [
        {"name": "head", "train": "head", "lr": 0.05, "epochs": 2},
        {"name": "all", "train": "all", "lr": 0.01, "epochs": 1},
    ]
    content = {"task": "text-classification", "model": "none/here", "data": "none/there", "stages": stages}
    return parse_recipe({**content, **changes})


@pytest.mark.parametrize(
    "text, values, distribution",
    [
        ("stages.1.lr=log:1e-5..1e-2", Range(1e-5, 1e-2, log=True), FloatDistribution(1e-5, 1e-2, log=True)),
        ("stages.1.lr=0.001..0.1", Range(0.001, 0.1), FloatDistribution(0.001, 0.1)),
        ("stages.1.epochs=1..10", Range(1, 10, integer=True), IntDistribution(1, 10)),
        (
            "stages[1].batch_size=log:8..64",
            Range(8, 64, log=True, integer=True),
            IntDistribution(8, 64, log=True),
        ),
        ("stages.0.epochs=3,5,10", Choices((3, 5, 10)), CategoricalDistribution(["3", "5", "10"])),
        (
            "stages.1.train=all, 'last:1'",
            Choices(("all", "last:1")),
            CategoricalDistribution(['"all"', '"last:1"']),
        ),
        (
            "model.adapter=null, {type: lora, r: 4}",
            Choices((None, {"type": "lora", "r": 4})),
            CategoricalDistribution(["null", '{"type": "lora", "r": 4}']),
        ),
    ],
)
def test_a_field_has_a_range_or_listed_values(text, values, distribution):
    (dimension,) = read_space(recipe(), [text]).dimensions
    assert dimension.values == values
    assert dimension.values.distribution() == distribution


def test_a_recipe_has_the_values_of_its_trial():
    space = read_space(recipe(), ["stages.1.lr=log:1e-5..1e-2", "stages.0.epochs=3,5"])
    drawn = space.decode({"stages.1.lr": 1e-3, "stages.0.epochs": "5"})
    assert drawn == {"stages.1.lr": 1e-3, "stages.0.epochs": 5}
    tried = space.recipe(drawn)
    assert (tried.stages[1].lr, tried.stages[0].epochs, tried.stages[0].lr) == (1e-3, 5, 0.05)


def test_the_first_trial_has_the_values_of_the_recipe_that_are_in_the_space():
    arguments = ["stages.1.lr=log:1e-5..1e-1", "stages.0.epochs=2,5", "stages.1.epochs=2..4"]
    values = read_space(recipe(), arguments).first_values(recipe())
    assert values == {"stages.1.lr": 0.01, "stages.0.epochs": "2"}


def test_an_argument_replaces_values_of_the_search_block():
    searched = recipe(search={"stages.1.lr": "log:1e-5..1e-2", "stages.0.epochs": [1, 2]})
    space = read_space(searched, ["stages.1.lr=0.1,0.2"])
    assert [dimension.values for dimension in space.dimensions] == [Choices((0.1, 0.2)), Choices((1, 2))]
    assert "search" not in space.base


def test_arguments_with_one_value_are_overrides():
    arguments = ["stages.1.lr=log:1e-5..1e-2", "seed=3", "stages.1.train=[head, all]", "stages.0.epochs=1,2"]
    assert split_arguments(arguments) == (
        ["seed=3", "stages.1.train=[head, all]"],
        ["stages.1.lr=log:1e-5..1e-2", "stages.0.epochs=1,2"],
    )


@pytest.mark.parametrize(
    "text, message",
    [
        ("stages.1.lr=log:0..1e-2", "must have ends above 0 on a logarithmic scale"),
        ("stages.1.lr=1e-2..1e-3", "must have a lower end that is below the upper end"),
        ("stages.1.lr=lin:1..2", "must have the scale log or none. Got 'lin'"),
        ("stages.1.lrr=1,2", "must set a known field. Got 'lrr'. Nearest: 'lr'"),
        ("stages.0.epochs=3,3", "must not repeat a value. Got 3"),
        ("stages.0.batch_size=0,8", "stages[0].batch_size must be at least 1. Got 0"),
        ("stages.7.lr=0.1,0.2", "stages has 2 entries"),
        ("stages.0.lr=0.1", "A single value is set in the recipe"),
        ("stages.0.lr", "must have the form KEY=VALUES"),
        ("seed=1,2", "must not vary in a search"),
        ("data.split.test=0.1,0.2", "must not vary in a search"),
        ("data.limit=100,200", "must not vary in a search"),
    ],
)
def test_bad_values_are_named(text, message):
    with pytest.raises(InputError) as caught:
        read_space(recipe(), [text])
    assert message in str(caught.value)


def test_all_problems_are_told_at_once():
    with pytest.raises(InputError) as caught:
        read_space(recipe(search={"seed": "1..2"}), ["stages.1.lr=2..1", "stages.1.lrr=1,2"])
    assert len(caught.value.problems) == 3


def test_an_empty_space_is_an_error():
    with pytest.raises(InputError, match="The search space must not be empty"):
        read_space(recipe())
