"""Regularization: a run that is interrupted in every stage ends the same, bit for bit; and its messages."""

import json
import logging

import pytest
import torch
from kit_stages import OF_IMAGES, OF_TEXTS, regular_stages
from run_helpers import Stop, changed, log_of, quick_run, tiny_image_recipe, tiny_text_recipe, weights_of
from safetensors.torch import load_file

from hf_finetune.recipe.load import parse_recipe
from hf_finetune.training.checkpoints import last_checkpoint

NAMES = {"text": list(OF_TEXTS), "image": list(OF_IMAGES)}


@pytest.fixture(scope="module")
def recipes(reviews, squares, bert_checkpoint, timm_checkpoint):
    """Return a recipe for texts, with accumulation and dropout, and one for images, augmented, with a prefix cache."""
    texts = regular_stages(OF_TEXTS, epochs=2.0, batch_size=3, accumulation=2)
    kept = {"prefix_cache": {"views": 2}}
    images = regular_stages(OF_IMAGES, epochs=2.0, batch_size=3, accumulation=2, optimizer="sgd")
    return {
        "text": tiny_text_recipe(reviews, bert_checkpoint, stages=texts, speed=kept),
        "image": tiny_image_recipe(squares, timm_checkpoint, stages=images, speed=kept),
    }


def stages_of(kind):
    return [f"{index + 1:02d}-{name}" for index, name in enumerate(NAMES[kind])]


@pytest.mark.defends(
    "hf_finetune.methods.ema:AveragedWeights.save", why="Checkpoints hold the averaged weights", ids=["text"]
)
@pytest.mark.parametrize("kind", ["text", "image"])
def test_a_run_that_is_interrupted_in_every_stage_ends_the_same(tmp_path, recipes, kind, caplog):
    recipe = recipes[kind]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    with caplog.at_level(logging.INFO):
        quick_run(recipe, whole)
    told = caplog.text
    for index, name in enumerate(NAMES[kind]):
        moment = ("ctrl-c", "ctrl-c at the end", "save")[index % 3]
        steps = json.loads((whole / "metrics.json").read_text(encoding="utf-8"))["stages"][index]["steps"]
        step = {"ctrl-c": 1 + index % 2, "save": steps // 2, "ctrl-c at the end": steps}[moment]
        with pytest.raises(KeyboardInterrupt):
            quick_run(recipe, parts, resume=index > 0, callbacks=[Stop(name, step, moment)])
    quick_run(recipe, parts, resume=True)
    assert changed(weights_of(whole), weights_of(parts)) == set()
    results = [json.loads((folder / "metrics.json").read_text(encoding="utf-8")) for folder in (whole, parts)]
    before = None
    for stage in stages_of(kind):
        one, other = (load_file(folder / "stages" / stage / "model.safetensors") for folder in (whole, parts))
        last, other_last = (
            load_file(last_checkpoint(folder / "stages" / stage) / "model.safetensors")
            for folder in (whole, parts)
        )
        assert changed(one, other) == changed(last, other_last) == set()
        assert log_of(whole, stage) == log_of(parts, stage)
        # the stage must train, whether that improves the model or not
        assert before is None or any(not torch.equal(last[name], before[name]) for name in last)
        before = one
    for one, other in zip(*(each["stages"] for each in results), strict=True):
        assert one.get("averaged") == other.get("averaged")
        assert one["validation"] == other["validation"]
    used = {stage["name"]: stage["prefix_cache"]["used"] for stage in results[0]["stages"]}
    cached = ("l2-sp", "noise") if kind == "image" else ("l2-sp", "noise", "all-of-them")
    assert used == {name: name in cached for name in used}
    if kind == "image":
        line = "Stage cutmix: prefix cache not used (mixup and cutmix mix whole images)."
        assert told.count(line) == 1


def test_the_log_and_the_metrics_report_which_weights_were_kept(tmp_path, recipes, caplog):
    stage = regular_stages({"ema": {"ema": 0.8}}, epochs=3.0, batch_size=3)[0]
    recipe = parse_recipe({**recipes["text"].model_dump(mode="json"), "stages": [stage]})
    with caplog.at_level(logging.INFO):
        quick_run(recipe, tmp_path / "run")
    (result,) = json.loads((tmp_path / "run" / "metrics.json").read_text(encoding="utf-8"))["stages"]
    evaluations = [entry for entry in log_of(tmp_path / "run", "01-ema") if "eval_loss" in entry]
    start = evaluations.pop(0)
    assert start["step"] == 0 and "averaged" not in start and len(evaluations) == 3
    for entry in evaluations:
        assert entry["eval_loss"] == min(entry["raw_loss"], entry["average_loss"])
        assert entry["averaged"] == (entry["average_loss"] < entry["raw_loss"])
    (best,) = [entry for entry in evaluations if entry["step"] == result["best_step"]]
    assert result["averaged"] == best["averaged"]
    assert result["validation"]["loss"] == best["eval_loss"] == min(e["eval_loss"] for e in evaluations)
    words = "averaged weights" if result["averaged"] else "raw weights"
    epoch = result["best_step"] * 3 // result["steps"]
    line = f"Stage ema: best checkpoint is epoch {epoch} of 3 (loss {best['eval_loss']:.4f}, {words})."
    assert line in caplog.text


def test_without_validation_the_average_is_kept_and_reported(tmp_path, recipes, caplog):
    content = recipes["text"].model_dump(mode="json")
    content["stages"] = regular_stages({"ema": {"ema": 0.8}}, epochs=1.0, batch_size=3, best=None)
    content["data"]["split"]["validation"] = 0.0
    with caplog.at_level(logging.INFO):
        quick_run(parse_recipe(content), tmp_path / "run")
    (result,) = json.loads((tmp_path / "run" / "metrics.json").read_text(encoding="utf-8"))["stages"]
    assert result["averaged"] is True and result["best_step"] is None
    assert "Stage ema: the averaged weights are kept." in caplog.text
