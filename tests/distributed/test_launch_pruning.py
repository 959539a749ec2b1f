"""Pruning on two processes: both make the same smaller model, and keep the same weights at 0."""

import pytest
import torch
from launching import spread
from test_interrupted import same, stage_weights
from test_processes import text_recipe

from hf_finetune.recipe.load import parse_recipe


@pytest.fixture(scope="module")
def launched(tmp_path_factory, reviews, bert_checkpoint):
    content = text_recipe(reviews, bert_checkpoint, 4).model_dump(mode="json")
    first, second = content["stages"][:2]
    second["compress"] = 0.5
    third = {**second, "name": "sparse", "lr": 0.002, "compress": {"prune": 0.4, "method": "unstructured"}}
    recipe = parse_recipe({**content, "stages": [first, second, third]})
    done = spread(tmp_path_factory.mktemp("pruned"), recipe, 2)
    assert done.code == 0, done.err[-4000:]
    return done


def test_the_processes_agree(launched):
    for stage in ("02-all", "03-sparse"):
        for moment in ("before", "after"):
            assert same(launched.weights(stage, 0, moment), launched.weights(stage, 1, moment)) == []


def test_the_model_is_narrower_and_its_zeros_stay(launched):
    name = "bert.encoder.layer.0.intermediate.dense.weight"
    assert launched.weights("01-head", 0)[name].shape == (32, 16)
    pruned, left = (
        launched.weights("03-sparse", 1, "before")[name],
        stage_weights(launched.folder, "03-sparse")[name],
    )
    assert pruned.shape == (16, 16)
    assert torch.equal(pruned == 0, left == 0) and (pruned == 0).any()
    assert not torch.equal(pruned, left)
    sizes = [stage["total_parameters"] for stage in launched.metrics()["stages"]]
    assert sizes[0] > sizes[1] == sizes[2]
