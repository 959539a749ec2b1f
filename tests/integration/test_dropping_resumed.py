"""Dropout and stochastic depth of a recipe: an interrupted run continues with the same random numbers."""

import pytest
from run_helpers import (
    Stop,
    assert_equal_runs,
    changed,
    interrupt,
    quick_run,
    tiny_image_recipe,
    tiny_text_recipe,
    weights_of,
)

from hf_finetune.recipe.load import parse_recipe


@pytest.fixture(scope="module")
def recipes(tmp_path_factory, squares, reviews, tiny_model, bert_checkpoint):
    """Return a function that makes a recipe for images or texts with the given fields of the model."""
    vit = tmp_path_factory.mktemp("vit")
    tiny_model("timm/test_vit").save_pretrained(vit)
    tiny = {
        "image": tiny_image_recipe(squares, vit),
        "text": tiny_text_recipe(reviews, bert_checkpoint),
    }

    def make(kind, **fields):
        content = tiny[kind].model_dump(mode="json")
        content["model"].update(fields)
        for stage in content["stages"]:
            stage["best"] = None  # the trained weights, even if they are not better
        return parse_recipe(content)

    return make


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("image", {"drop_path": 0.5}),
        ("image", {"dropout": 0.5, "drop_path": 0.5}),
        ("text", {"dropout": 0.5}),
    ],
)
def test_an_interrupted_run_ends_the_same(tmp_path, recipes, kind, fields):
    recipe = recipes(kind, **fields)
    quick_run(recipe, tmp_path / "whole")
    interrupt(recipe, tmp_path / "parts", Stop("all", 3, "ctrl-c"))
    quick_run(recipe, tmp_path / "parts", resume=True)
    assert_equal_runs(tmp_path / "whole", tmp_path / "parts")
    quick_run(recipes(kind, **dict.fromkeys(fields, 0.0)), tmp_path / "without")
    assert changed(weights_of(tmp_path / "whole"), weights_of(tmp_path / "without")) != set()
