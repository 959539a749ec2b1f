"""Another head and varied examples on two processes: in step with each other, and with one process."""

import pytest
import torch
from launching import spread
from test_interrupted import close, same, stage_weights
from test_processes import STAGES, text_recipe

from hf_finetune.recipe import parse_recipe
from hf_finetune.run import run


def varied(recipe):
    content = recipe.model_dump(mode="json")
    content["model"]["head"] = {"type": "cosine", "pool": "attention"}
    content["data"]["augment"] = {"mask": 0.2, "drop": 0.2}
    for stage in content["stages"]:
        stage["optimizer"] = (
            "sgd"  # AdamW would make much of the rounding of gradients that are almost nothing
        )
    return parse_recipe(content)


@pytest.fixture(scope="module")
def two(tmp_path_factory, reviews, bert_checkpoint):
    done = spread(tmp_path_factory.mktemp("two"), varied(text_recipe(reviews, bert_checkpoint, 4)), 2)
    assert done.code == 0, done.err[-4000:]
    return done


def test_two_processes_end_each_stage_with_the_same_bits(two):
    for stage in STAGES:
        assert same(two.weights(stage, 0), two.weights(stage, 1)) == []


def test_two_processes_learn_what_one_learns(tmp_path, two, reviews, bert_checkpoint):
    run(varied(text_recipe(reviews, bert_checkpoint, 8)), tmp_path / "run")
    for stage in STAGES:
        one, other = stage_weights(tmp_path, stage), stage_weights(two.folder, stage)
        close(one, other)
        moved = two.weights(stage, 0), two.weights(stage, 0, "before")
        assert not torch.equal(*(each["classifier.layers.0.weight"] for each in moved))
