"""Class balancing and schedules: a run that is interrupted in every stage ends the same, bit for bit."""

import json

import pytest
import torch
from kit_stages import BALANCES, kit_stages, skewed_reviews
from run_helpers import Stop, changed, log_of, quick_run, tiny_image_recipe, tiny_text_recipe, weights_of
from safetensors.torch import load_file

from hf_finetune.runs.prepare import plan_stages

STAGES = [f"{index + 1:02d}-{name}" for index, name in enumerate(BALANCES)]


@pytest.fixture(scope="module")
def recipes(tmp_path_factory, reviews, squares, bert_checkpoint, timm_checkpoint):
    """Return a recipe for texts, with accumulation and dropout, and one for images, augmented, with a prefix cache."""
    table = skewed_reviews(reviews, tmp_path_factory.mktemp("skewed") / "reviews.csv")
    texts = kit_stages(epochs=2.0, batch_size=2, accumulation=2, best=None)
    images = kit_stages(epochs=2.0, batch_size=4, optimizer="sgd", best=None)
    for stage in images:
        if isinstance(stage["balance"], dict) and "weights" in stage["balance"]:
            stage["balance"] = {**stage["balance"], "weights": {"red": 3.0}}
    return {
        "text": tiny_text_recipe(table, bert_checkpoint, stages=texts),
        "image": tiny_image_recipe(
            squares, timm_checkpoint, stages=images, speed={"prefix_cache": {"views": 2}}
        ),
    }


@pytest.mark.parametrize("kind", ["text", "image"])
def test_a_run_that_is_interrupted_in_every_stage_ends_the_same(tmp_path, recipes, kind):
    recipe = recipes[kind]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    quick_run(recipe, whole)
    for index, name in enumerate(BALANCES):
        with pytest.raises(KeyboardInterrupt):
            quick_run(recipe, parts, resume=index > 0, callbacks=[Stop(name, 1 + index % 3, "ctrl-c")])
    quick_run(recipe, parts, resume=True)
    assert changed(weights_of(whole), weights_of(parts)) == set()
    before = None
    for stage in STAGES:
        one, other = (load_file(folder / "stages" / stage / "model.safetensors") for folder in (whole, parts))
        assert changed(one, other) == set()
        assert log_of(whole, stage) == log_of(parts, stage)
        assert before is None or any(not torch.equal(one[name], before[name]) for name in one)
        before = one
    if kind == "image":
        stages = json.loads((whole / "metrics.json").read_text(encoding="utf-8"))["stages"]
        assert [stage["prefix_cache"]["used"] for stage in stages] == [True, False] * 3


def test_the_rates_of_a_run_are_those_of_its_plan(tmp_path, recipes):
    recipe = recipes["text"]
    quick_run(recipe, tmp_path / "run")
    for stage, plan in zip(STAGES, plan_stages(recipe).plan.stages, strict=True):
        logged = [entry["learning_rates"] for entry in log_of(tmp_path / "run", stage) if "loss" in entry]
        assert len(logged) == plan.steps == 10
        for step, rates in enumerate(logged):
            factors = [group.schedule.rate_factor(step, plan.steps) for group in plan.groups]
            expected = [group.lr * factor for group, factor in zip(plan.groups, factors, strict=True)]
            assert [rate for _, rate in rates] == pytest.approx(expected, rel=1e-12)
