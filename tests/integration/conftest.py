"""Tiny recipes for whole runs, and such runs."""

from functools import partial

import pytest
from run_helpers import tiny_image_recipe, tiny_text_recipe

from hf_finetune.run import run


@pytest.fixture(scope="session")
def image_recipe(squares, timm_checkpoint):
    return partial(tiny_image_recipe, squares, timm_checkpoint)


@pytest.fixture(scope="session")
def text_recipe(reviews, bert_checkpoint):
    return partial(tiny_text_recipe, reviews, bert_checkpoint)


@pytest.fixture(scope="session")
def image_run(tmp_path_factory, image_recipe):
    recipe = image_recipe()
    return recipe, run(recipe, tmp_path_factory.mktemp("image") / "run")


@pytest.fixture(scope="session")
def text_run(tmp_path_factory, text_recipe):
    recipe = text_recipe()
    return recipe, run(recipe, tmp_path_factory.mktemp("text") / "run")
