"""A stage written in Python is a stage of a recipe."""

import pickle

import pytest

from hf_finetune import InputError, Stage, parse_recipe
from hf_finetune.fields.base import leaf_parts
from hf_finetune.recipe.stage_fields import StageSpec

CONTENT = {"task": "image-classification", "model": "model", "data": "data"}


@pytest.mark.parametrize("selector", ["last:3", ["head", "norms"]])
def test_it_has_the_fields_of_a_stage(selector):
    fields = {"epochs": 2, "lr": {"head": 1e-3, "backbone": 1e-5}, "regularize": {"mixup": 0.2}}
    stage = Stage(selector, **fields)
    assert stage.model_dump() == StageSpec(train=selector, **fields).model_dump()
    assert pickle.loads(pickle.dumps(stage)) == stage


def test_a_recipe_accepts_it():
    stages = [Stage("head", epochs=1, lr=0.1), {"train": "all", "epochs": 1, "lr": 0.1}]
    assert [stage.name for stage in parse_recipe({**CONTENT, "stages": stages}).stages] == ["head", "all"]
    with pytest.raises(InputError, match=r"^stages\[1\] must differ from the previous stage"):
        parse_recipe({**CONTENT, "stages": [stages[0], stages[0]]})


def test_all_its_problems_are_reported():
    with pytest.raises(InputError) as caught:
        Stage("head", epoch=1, lr=-1)
    assert [str(problem) for problem in caught.value.problems] == [
        "lr must be above 0. Got -1.",
        "epoch must be a known field. Nearest: 'epochs'.",
    ]


def test_recipe_files_know_nothing_of_it():
    assert Stage not in leaf_parts()
    assert StageSpec in leaf_parts()
