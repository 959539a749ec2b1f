"""Whole runs on tiny models and tiny data: trained parameters and saved files."""

import json
from pathlib import Path

import datasets
import numpy as np
import pytest
import timm
import torch
from run_helpers import Record, assert_equal_runs, changed, log_of, quick_run, weights_of, with_stages
from safetensors.torch import load_file
from transformers import (
    AutoModelForImageClassification,
    AutoModelForSequenceClassification,
    TrainerCallback,
    pipeline,
)

from hf_finetune.doctor.checkpoint import realign_weights
from hf_finetune.evaluation.classifier import load_classifier
from hf_finetune.evaluation.evaluate import evaluate_model
from hf_finetune.evaluation.predictions import read_predictions
from hf_finetune.recipe.load import load_recipe, parse_recipe
from hf_finetune.runs.prepare import plan_stages

# --- Trained parameters -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["image", "text"])
def test_each_stage_changes_exactly_the_planned_parameters(tmp_path, request, kind):
    recipe = with_stages(request.getfixturevalue(f"{kind}_recipe")(), {"best": None}, {"best": None})
    record = Record()
    quick_run(recipe, tmp_path / "run", callbacks=[record])
    stages = plan_stages(recipe).plan.stages
    for index, (plan, spec) in enumerate(zip(stages, recipe.stages, strict=True)):
        moved = changed(record.before[index], record.after[index])
        trainable = set(plan.trainable)
        statistics = {
            name for name in moved - trainable if name.rpartition(".")[2].startswith(("running", "num_b"))
        }
        assert moved - statistics <= trainable
        # attention does not depend on a key's bias: its gradient is only rounding
        assert {name for name in trainable - moved if "key.bias" not in name} == set()
        moving = {name.rpartition(".")[0] for name in trainable}
        assert {name.rpartition(".")[0] for name in statistics} <= moving
        assert record.groups[index] == [
            (list(group.parameters), pytest.approx(group.lr), group.weight_decay) for group in plan.groups
        ]
        assert spec.name == plan.name
    assert changed(record.after[0], record.before[1]) == set()


def test_the_backbone_does_not_change_in_the_head_stage(tmp_path, image_recipe):
    """Trap 7: BatchNorm statistics drift in a stock Trainer although every parameter is frozen."""
    record = Record()
    quick_run(image_recipe(), tmp_path / "run", callbacks=[record])
    moved = changed(record.before[0], record.after[0])
    assert moved == {"timm_model.fc.weight", "timm_model.fc.bias"}
    assert record.modes[0] == {"", "timm_model", "timm_model.fc"}
    statistics = {name for name in changed(record.before[1], record.after[1]) if "running" in name}
    assert statistics and all("layer3" in name or "layer4" in name for name in statistics)


def test_dropout_of_a_frozen_prefix_is_off(tmp_path, text_recipe):
    """Trap 8: otherwise the output of the frozen prefix is random."""
    record = Record()
    quick_run(text_recipe(), tmp_path / "run", callbacks=[record])
    assert record.modes[0] == {"", "classifier"}
    assert {"bert.embeddings.dropout", "bert.encoder.layer.0.output.dropout", "dropout"} <= record.modes[1]


# --- Saved files ----------------------------------------------------------------------------------------------


def test_an_image_model_loads_in_transformers_and_in_timm(image_run, squares):
    """Trap 22, on a model that was trained."""
    folder = image_run[1].folder / "model"
    pixels = torch.linspace(-1, 1, 3 * 32 * 32).reshape(1, 3, 32, 32)
    wrapped, info = AutoModelForImageClassification.from_pretrained(folder, output_loading_info=True)
    assert not any(info.values())
    plain = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    with torch.no_grad():
        assert torch.equal(realign_weights(wrapped)(pixels).logits, realign_weights(plain)(pixels))
    assert wrapped.config.id2label == {0: "blue", 1: "green", 2: "red"}
    found = pipeline("image-classification", model=str(folder))(str(squares / "red" / "00.png"))
    assert {entry["label"] for entry in found} == {"blue", "green", "red"}


def test_a_text_model_loads_in_transformers(text_run):
    folder = text_run[1].folder / "model"
    model, info = AutoModelForSequenceClassification.from_pretrained(folder, output_loading_info=True)
    assert not any(info.values())
    assert (model.config.id2label, model.config.problem_type) == (
        {0: "bad", 1: "good"},
        "single_label_classification",
    )
    assert pipeline("text-classification", model=str(folder))("good film")[0]["label"] in ("bad", "good")


@pytest.mark.parametrize("kind", ["image", "text"])
def test_the_saved_weights_are_those_of_the_last_stage(request, kind):
    folder = request.getfixturevalue(f"{kind}_run")[1].folder
    staged = load_file(folder / "stages" / "02-all" / "model.safetensors")
    saved = weights_of(folder)
    assert (
        changed({name.removeprefix("timm_model."): value for name, value in staged.items()}, saved) == set()
    )


@pytest.mark.parametrize("kind", ["image", "text"])
def test_the_next_stage_continues_from_the_best_checkpoint(request, kind):
    recipe, result = request.getfixturevalue(f"{kind}_run")
    for number, (stage, entry) in enumerate(zip(recipe.stages, result.metrics["stages"], strict=True), 1):
        folder = result.folder / "stages" / f"{number:02d}-{stage.name}"
        log = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
        evaluations = {line["step"]: line for line in log if "eval_accuracy" in line}
        assert min(evaluations) == 0, "the weights with which the stage begins are evaluated"
        best = max(
            evaluations,
            key=lambda step: (evaluations[step]["eval_accuracy"], -evaluations[step]["eval_loss"], -step),
        )
        assert entry["best_step"] == best
        assert entry["validation"]["accuracy"] == evaluations[best]["eval_accuracy"]
        assert entry["start"]["accuracy"] == evaluations[0]["eval_accuracy"]
        kept = load_file(folder / f"checkpoint-{best}" / "model.safetensors")
        assert changed(kept, load_file(folder / "model.safetensors")) == set()


@pytest.mark.parametrize("kind", ["image", "text"])
def test_metrics_and_predictions_are_those_of_the_saved_model(request, kind):
    recipe, result = request.getfixturevalue(f"{kind}_run")
    content = json.loads((result.folder / "metrics.json").read_text(encoding="utf-8"))
    assert content == result.metrics
    assert set(content) == {
        *("task", "wall_seconds", "stages", "test", "test_interval", "test_calibration", "calibration"),
        *("target", "test_examples", "test_seconds", "baselines", "baseline_fit", "baseline_differences"),
    }
    assert content["task"] == recipe.task
    for entry, plan in zip(content["stages"], plan_stages(recipe).plan.stages, strict=True):
        assert (entry["best_step"] == 0) == ("trained" in entry)
        assert set(entry) - {"trained"} == {
            "name",
            "epochs",
            "steps",
            "best_step",
            "train_seconds",
            "trainable_parameters",
            "total_parameters",
            "speed",
            "prefix_cache",
            *("validation", "start"),
        }
        assert (entry["name"], entry["epochs"], entry["steps"], entry["trainable_parameters"]) == (
            plan.name,
            2.0,
            plan.steps,
            plan.trainable_size,
        )
    predictions = read_predictions(result.folder / "predictions.parquet")
    right = np.mean(predictions.scores.argmax(axis=1) == predictions.labels)
    assert content["test"]["accuracy"] == pytest.approx(right)
    assert {"accuracy", "f1_macro", "log_loss"} <= content["test"].keys()
    shares = np.bincount(predictions.labels) / len(predictions.labels)
    assert any(content["baselines"]["majority"]["accuracy"] == pytest.approx(share) for share in shares)
    classifier = load_classifier(result.folder / "model")
    features = datasets.Features(
        {
            "id": datasets.Value("string"),
            "image" if kind == "image" else "text": datasets.Image()
            if kind == "image"
            else datasets.Value("string"),
            "label": datasets.ClassLabel(names=list(classifier.label_names)),
        }
    )
    if kind == "image":
        inputs = [str(Path(recipe.data.path) / name) for name in predictions.ids]
    else:
        rows = datasets.load_dataset("csv", data_files=recipe.data.path, split="train")["text"]
        inputs = [rows[int(name.rpartition(":")[2])] for name in predictions.ids]
    columns = {"id": list(predictions.ids), list(features)[1]: inputs, "label": list(predictions.labels)}
    again = evaluate_model(classifier, datasets.Dataset.from_dict(columns, features))
    np.testing.assert_allclose(again.scores, predictions.scores, rtol=0, atol=1e-7)


@pytest.mark.parametrize("kind", ["image", "text"])
def test_the_manifest_records_completion_and_inputs(request, kind):
    recipe, result = request.getfixturevalue(f"{kind}_run")
    manifest = json.loads((result.folder / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["state"] == "done"
    assert [(stage["name"], stage["state"]) for stage in manifest["stages"]] == [
        ("head", "done"),
        ("all", "done"),
    ]
    assert all(stage["seconds"] > 0 for stage in manifest["stages"])
    assert [stage["result"] for stage in manifest["stages"]] == result.metrics["stages"]
    assert (manifest["seed"], manifest["format"]) == (recipe.seed, 1)
    assert manifest["determinism"]["bit_for_bit"] is True
    assert manifest["determinism"]["provided"]["threads"] == torch.get_num_threads()
    assert {name: len(value) for name, value in manifest["fingerprints"].items()} == dict.fromkeys(
        ["recipe", "data", "classes", "checkpoint", "architecture"], 64
    )
    assert manifest["versions"]["torch"] == torch.__version__.split("+")[0]
    assert sorted(path.name for path in result.folder.iterdir()) == [
        *(
            "baselines",
            "data.json",
            "examples.npz",
            "figures",
            "manifest.json",
            "metrics.json",
            "mistakes.json",
        ),
        *("model", "predictions.parquet", "recipe.yaml", "report.html", "stages"),
    ]


def test_the_log_of_a_stage_contains_the_rate_of_every_layer_group(image_run):
    """Trap 18: transformers 5.23 logs the rate of the first group only."""
    entries = [entry for entry in log_of(image_run[1].folder, "02-all") if "loss" in entry]
    assert entries
    groups = plan_stages(image_run[0]).plan.stages[1].groups
    for entry in entries:
        share = 1 - (entry["step"] - 1) / 12
        assert entry["learning_rates"] == [
            [group.layers, pytest.approx(group.lr * share, abs=1e-15)] for group in groups
        ]


@pytest.mark.parametrize("kind", ["image", "text"])
def test_the_saved_recipe_run_again_gives_the_same_bits(tmp_path, request, kind):
    recipe, result = request.getfixturevalue(f"{kind}_run")
    again = load_recipe(result.folder / "recipe.yaml")
    assert again == recipe
    quick_run(again, tmp_path / "again")
    assert_equal_runs(result.folder, tmp_path / "again")
    assert (tmp_path / "again" / "recipe.yaml").read_bytes() == (result.folder / "recipe.yaml").read_bytes()


def test_another_seed_gives_other_weights(tmp_path, text_run):
    recipe, result = text_run
    quick_run(recipe.model_copy(update={"seed": 11}), tmp_path / "other")
    assert changed(weights_of(result.folder), weights_of(tmp_path / "other"))


def test_the_highest_seed_will_do(tmp_path, text_recipe):
    recipe = with_stages(text_recipe(seed=2**32 - 1), *[{"epochs": None, "max_steps": 1, "best": None}] * 2)
    assert quick_run(recipe, tmp_path / "run").metrics["stages"][1]["steps"] == 1


def test_without_validation_the_last_weights_are_kept(tmp_path, text_recipe):
    recipe = text_recipe()
    content = recipe.model_dump(mode="json")
    content["data"]["split"] = {"validation": 0.0, "test": 0.0}
    metrics = quick_run(parse_recipe(content), tmp_path / "run").metrics
    assert [(entry["best_step"], entry["validation"]) for entry in metrics["stages"]] == [(None, {})] * 2
    assert (metrics["test"], metrics["baselines"]) == ({}, {})
    assert not (tmp_path / "run" / "predictions.parquet").exists()
    last = load_file(tmp_path / "run" / "stages" / "02-all" / "checkpoint-10" / "model.safetensors")
    assert changed(last, weights_of(tmp_path / "run")) == set()


@pytest.mark.parametrize("schedule", ["linear", "cosine", "constant", {"name": "polynomial", "power": 2.0}])
def test_every_schedule_decays_as_declared_after_its_warmup(tmp_path, text_recipe, schedule):
    rates = []

    class Rates(TrainerCallback):
        def on_pre_optimizer_step(self, args, state, control, **kwargs):
            rates.append(kwargs["optimizer"].param_groups[0]["lr"])

    recipe = with_stages(
        text_recipe(),
        {"epochs": None, "max_steps": 8, "schedule": schedule, "warmup": 2, "lr": 0.1},
        {"epochs": None, "max_steps": 1},
    )
    quick_run(recipe, tmp_path / "run", callbacks=[Rates()])
    falls = {
        "linear": lambda part: 1 - part,
        "cosine": lambda part: 0.5 * (1 + np.cos(np.pi * part)),
        "constant": lambda part: 1.0,
        "polynomial": lambda part: (1 - part) ** 2,
    }[schedule if isinstance(schedule, str) else schedule["name"]]
    assert rates[:8] == pytest.approx([0.0, 0.05, *(0.1 * falls(step / 6) for step in range(6))], rel=1e-12)


def test_the_polynomial_rate_is_exact_at_every_step(tmp_path, text_recipe):
    rates = []

    class Rates(TrainerCallback):
        def on_pre_optimizer_step(self, args, state, control, **kwargs):
            rates.append([group["lr"] for group in kwargs["optimizer"].param_groups])

    schedule = {"name": "polynomial", "power": 0.9}
    recipe = with_stages(text_recipe(), {"epochs": None, "max_steps": 1}, {"schedule": schedule})
    quick_run(recipe, tmp_path / "run", callbacks=[Rates()])
    groups = plan_stages(recipe).plan.stages[1].groups
    steps = plan_stages(recipe).plan.stages[1].steps
    expected = [[group.lr * (1 - step / steps) ** 0.9 for group in groups] for step in range(steps)]
    torch.testing.assert_close(torch.tensor(rates[1:]), torch.tensor(expected), rtol=1e-12, atol=0)
