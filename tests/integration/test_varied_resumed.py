"""Augmentations and heads: a run that is interrupted ends the same, bit for bit."""

import pytest
from run_helpers import Stop, assert_equal_runs, interrupt, quick_run
from varied_images import VARIED, varied_recipe


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory, tiny_model):
    folder = tmp_path_factory.mktemp("vit")
    tiny_model("timm/test_vit").save_pretrained(folder)
    return folder


@pytest.mark.parametrize("name", VARIED)
def test_an_interrupted_run_ends_the_same(tmp_path, squares, checkpoint, name):
    recipe = varied_recipe(squares, checkpoint, name, 6)
    quick_run(recipe, tmp_path / "whole")
    interrupt(recipe, tmp_path / "parts", Stop("head", 3, "ctrl-c"))
    quick_run(recipe, tmp_path / "parts", resume=True)
    assert_equal_runs(tmp_path / "whole", tmp_path / "parts")
