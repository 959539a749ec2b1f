"""Runs behind a prefix cache: the same weights as without one, and what is kept is kept safely."""

import json

import pytest
from run_helpers import changed, log_of, weights_of, with_stages

from hf_finetune.recipe import parse_recipe
from hf_finetune.run import run


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_FINETUNE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def cached(recipe, views="auto", **more):
    content = recipe.model_dump(mode="json")
    content["speed"]["prefix_cache"] = {"views": views, **more}
    return parse_recipe(content)


def reports(folder):
    stages = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))["stages"]
    return [stage["prefix_cache"] for stage in stages]


def assert_same(one, other):
    assert changed(weights_of(one), weights_of(other)) == set()
    assert (one / "predictions.parquet").read_bytes() == (other / "predictions.parquet").read_bytes()
    for stage in sorted(path.name for path in (one / "stages").iterdir()):
        assert log_of(one, stage) == log_of(other, stage)


def test_without_augmentation_images_give_the_same_bits(tmp_path, image_recipe):
    content = image_recipe().model_dump(mode="json")
    content["data"]["augment"] = "none"
    recipe = parse_recipe(content)
    run(recipe, tmp_path / "plain")
    run(cached(recipe), tmp_path / "cached")
    assert_same(tmp_path / "plain", tmp_path / "cached")
    head, last = reports(tmp_path / "cached")
    assert head["used"] and head["views"] == 1 and head["bytes"] > 0
    assert last["used"]


def test_with_as_many_versions_as_epochs_augmented_images_give_the_same_bits(tmp_path, image_recipe, image_run):
    run(cached(image_recipe(), 2), tmp_path / "cached")
    assert_same(image_run[1].folder, tmp_path / "cached")
    assert [report["views"] for report in reports(tmp_path / "cached")] == [2, 2]


def test_texts_give_the_same_results(tmp_path, text_recipe):
    recipe = with_stages(text_recipe(), {}, {"train": "last:1"})
    run(recipe, tmp_path / "plain")
    run(cached(recipe), tmp_path / "cached")
    assert_same(tmp_path / "plain", tmp_path / "cached")
    assert [report["used"] for report in reports(tmp_path / "cached")] == [True, True]
