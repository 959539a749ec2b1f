"""The forecast of ``plan`` on frozen layers, and the execution by ``run``."""

import re

import pytest
from run_helpers import with_stages

from hf_finetune.recipe.load import parse_recipe
from hf_finetune.runs.estimates import describe_prefix_caches
from hf_finetune.runs.prepare import plan_stages


def said(recipe, epochs=2.0, **speed):
    content = recipe.model_dump(mode="json")
    content["speed"] |= speed
    for stage in content["stages"]:
        stage["epochs"] = epochs
    return describe_prefix_caches(plan_stages(parse_recipe(content)))


def test_images(image_recipe):
    head, last = said(image_recipe(), epochs=4.0)
    assert head == (
        "prefix cache: outputs of all layers before timm_model.fc, 2 views of each example, "
        "18,432 bytes; used if it saves time"
    )
    assert last.startswith("prefix cache: outputs of all layers before timm_model.layer3, 2 ")


def test_texts(text_recipe):
    head, everything = said(text_recipe())
    assert head == (
        "prefix cache: outputs of all layers before classifier, 1,792 bytes; used if it saves time"
    )
    assert everything == ""
    last, _ = said(with_stages(text_recipe(), {"train": "last:1"}, {}))
    assert re.fullmatch(
        r"prefix cache: outputs of all layers before [\w.]+, 64 bytes per token; used if it saves time",
        last,
    )


@pytest.mark.parametrize(
    ("epochs", "speed", "sentence"),
    [
        (2.0, {}, "prefix cache: not used (each cached view would be used only once)"),
        (9.0, {"prefix_cache": None}, "prefix cache: not used (turned off in the recipe)"),
        (2.0, {"prefix_cache": {"views": 5}}, "5 views of each example"),
    ],
)
def test_the_reason_is_reported(image_recipe, epochs, speed, sentence):
    assert sentence in said(image_recipe(), epochs, **speed)[0]


@pytest.mark.parametrize(
    ("strategy", "model", "is_said"),
    [
        ({"name": "features"}, {}, True),
        ({"name": "features", "classifier": "sgd"}, {}, True),
        ({"name": "features"}, {"head": {"pool": "own"}}, False),
        ({"name": "features", "classifier": "sgd"}, {"head": "cosine"}, False),
        ({"name": "gradual_unfreeze", "lr": 1e-3}, {}, False),
    ],
)
def test_a_plan_announces_that_the_run_chooses_the_pooling_of_texts(text_recipe, strategy, model, is_said):
    content = text_recipe().model_dump(mode="json", exclude={"stages"})
    content["model"] |= model
    recipe = parse_recipe({**content, "strategy": strategy})
    sentences = describe_prefix_caches(plan_stages(recipe), strategy["name"])
    assert sentences[0].startswith("prefix cache: ")
    assert any("token pooling: chosen by cross-validation" in each for each in sentences) is is_said
