"""Tiny recipes for whole runs, and such runs."""

from functools import partial

import pytest
from run_helpers import tiny_image_recipe, tiny_text_recipe

from hf_finetune.runs.run import run


@pytest.fixture(scope="session")
def image_recipe(squares, timm_checkpoint):
    return partial(tiny_image_recipe, squares, timm_checkpoint)


@pytest.fixture(scope="session")
def text_recipe(reviews, bert_checkpoint):
    return partial(tiny_text_recipe, reviews, bert_checkpoint)


@pytest.fixture(scope="session")
def image_run(tmp_path_factory, image_recipe):
    """Return a recipe of images and its finished run, with all evaluations."""
    recipe = image_recipe(evaluation={})
    return recipe, run(recipe, tmp_path_factory.mktemp("image") / "run")


@pytest.fixture(scope="session")
def text_run(tmp_path_factory, text_recipe):
    """Return a recipe of texts and its finished run, with all evaluations."""
    recipe = text_recipe(evaluation={})
    return recipe, run(recipe, tmp_path_factory.mktemp("text") / "run")
