"""Whole runs on tiny models and tiny data: what moves, what is saved, and what an interruption changes: nothing."""

import json
import os
import shutil
import signal
from pathlib import Path

import datasets
import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForImageClassification,
    AutoModelForSequenceClassification,
    TrainerCallback,
    ViTImageProcessor,
    pipeline,
)

from hf_finetune.errors import InputError
from hf_finetune.evaluation.checkpoint import load_classifier
from hf_finetune.evaluation.evaluate import evaluate_model
from hf_finetune.evaluation.predictions import read_predictions
from hf_finetune.models.layout import head_names, read_layout
from hf_finetune.ready import plan
from hf_finetune.recipe import dump_recipe, load_recipe, parse_recipe
from hf_finetune.run import run
from hf_finetune.staging.callbacks import DivergedError

# What a run may take a different time for.
TIMES = ("runtime", "per_second", "seconds")


@pytest.fixture
def image_recipe(squares, timm_checkpoint):
    """Give the maker of a recipe of two stages: 24 images in 6 steps an epoch, augmented."""

    def make(**changes):
        common = {"epochs": 2.0, "batch_size": 4, "optimizer": "sgd"}
        content = {
            "task": "image-classification",
            "model": str(timm_checkpoint),
            "data": {
                "path": str(squares),
                "augment": "strong",
                "split": {"validation": 0.17, "test": 0.17},
            },
            "stages": [
                {"name": "head", "train": "head", "lr": 0.05, **common},
                {"name": "all", "train": "last:2", "lr": 0.01, "layer_decay": 0.5, **common},
            ],
            "seed": 3,
        }
        return parse_recipe({**content, **changes})

    return make


@pytest.fixture
def text_recipe(reviews, bert_checkpoint):
    """Give the maker of a recipe of two stages: 28 texts in 4 steps an epoch, with dropout."""

    def make(**changes):
        common = {"epochs": 2.0, "batch_size": 4, "accumulation": 2}
        content = {
            "task": "text-classification",
            "model": str(bert_checkpoint),
            "data": {"path": str(reviews), "split": {"validation": 0.15, "test": 0.15}},
            "stages": [
                {"name": "head", "train": "head", "lr": 0.05, **common},
                {"name": "all", "train": "all", "lr": 0.005, "layer_decay": 0.9, **common},
            ],
        }
        return parse_recipe({**content, **changes})

    return make


def with_stages(recipe, *changes):
    """Change fields of the stages of a recipe, one mapping for each stage."""
    content = recipe.model_dump(mode="json")
    for stage, change in zip(content["stages"], changes, strict=True):
        stage.update(change)
    return parse_recipe(content)


class Record(TrainerCallback):
    """Keep the model's state around each stage, and what its optimiser held."""

    def __init__(self):
        self.before, self.after, self.groups, self.modes = [], [], [], []

    def on_train_begin(self, args, state, control, **kwargs):
        self.before.append(copy_of(kwargs["model"]))
        names = {id(parameter): name for name, parameter in kwargs["model"].named_parameters()}
        self.groups.append(
            [
                ([names[id(p)] for p in group["params"]], group["initial_lr"], group["weight_decay"])
                for group in kwargs["optimizer"].param_groups
            ]
        )
        self.modes.append(set())

    def on_step_end(self, args, state, control, **kwargs):
        training = [name for name, module in kwargs["model"].named_modules() if module.training]
        self.modes[-1].update(training)

    def on_train_end(self, args, state, control, **kwargs):
        self.after.append(copy_of(kwargs["model"]))


class Stop(TrainerCallback):
    """Stop as if killed: at the start of a step of a stage, or right after a checkpoint."""

    def __init__(self, stage, step, moment):
        self.stage, self.step, self.moment = stage, step, moment

    def happens(self, moment, args, state):
        here = Path(args.output_dir).name.endswith(self.stage) and state.global_step == self.step
        return here and moment == self.moment

    def on_step_begin(self, args, state, control, **kwargs):
        if self.happens("ctrl-c", args, state):
            os.kill(os.getpid(), signal.SIGINT)
        if self.happens("begin", args, state):
            raise KeyboardInterrupt

    def on_save(self, args, state, control, **kwargs):
        if self.happens("save", args, state):
            raise KeyboardInterrupt


def copy_of(model):
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def changed(before, after):
    assert before.keys() == after.keys()
    return {name for name in before if not torch.equal(before[name], after[name])}


def weights_of(folder):
    return load_file(folder / "model" / "model.safetensors")


def without_times(value):
    if isinstance(value, dict):
        return {
            key: without_times(item) for key, item in value.items() if not any(word in key for word in TIMES)
        }
    return [without_times(item) for item in value] if isinstance(value, list) else value


def log_of(folder, stage):
    """Read a stage's log, but for the summary of the last ``train()`` call, which counts its own steps."""
    lines = (folder / "stages" / stage / "log.jsonl").read_text(encoding="utf-8").splitlines()
    entries = [without_times(json.loads(line)) for line in lines]
    return [entry for entry in entries if "train_loss" not in entry]


def assert_equal_runs(one, other):
    first, second = weights_of(one), weights_of(other)
    assert changed(first, second) == set()
    metrics = [without_times(json.loads((folder / "metrics.json").read_text())) for folder in (one, other)]
    assert metrics[0] == metrics[1]
    tables = [(folder / "predictions.parquet").read_bytes() for folder in (one, other)]
    assert tables[0] == tables[1]
    for stage in ("01-head", "02-all"):
        assert log_of(one, stage) == log_of(other, stage)


# --- What moves -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["image", "text"])
def test_each_stage_moves_exactly_what_is_planned(tmp_path, request, kind):
    recipe = request.getfixturevalue(f"{kind}_recipe")()
    record = Record()
    run(recipe, tmp_path / "run", callbacks=[record])
    stages = plan(recipe).plan.stages
    for index, (planned, spec) in enumerate(zip(stages, recipe.stages, strict=True)):
        moved = changed(record.before[index], record.after[index])
        trainable = set(planned.trainable)
        statistics = {
            name for name in moved - trainable if name.rpartition(".")[2].startswith(("running", "num_b"))
        }
        assert moved - statistics <= trainable
        # attention does not see a key's bias: its gradient is nothing but rounding
        assert {name for name in trainable - moved if "key.bias" not in name} == set()
        moving = {name.rpartition(".")[0] for name in trainable}
        assert {name.rpartition(".")[0] for name in statistics} <= moving
        assert record.groups[index] == [
            (list(group.parameters), pytest.approx(group.lr), group.weight_decay) for group in planned.groups
        ]
        assert spec.name == planned.name
    assert changed(record.after[0], record.before[1]) == set()


def test_nothing_of_the_backbone_moves_in_the_head_stage(tmp_path, image_recipe):
    """Trap 7: BatchNorm statistics drift in a stock Trainer although every parameter is frozen."""
    record = Record()
    run(image_recipe(), tmp_path / "run", callbacks=[record])
    moved = changed(record.before[0], record.after[0])
    assert moved == {"timm_model.fc.weight", "timm_model.fc.bias"}
    assert record.modes[0] == {"", "timm_model", "timm_model.fc"}
    statistics = {name for name in changed(record.before[1], record.after[1]) if "running" in name}
    assert statistics and all("layer3" in name or "layer4" in name for name in statistics)


def test_dropout_of_a_frozen_prefix_is_off(tmp_path, text_recipe):
    """Trap 8: otherwise the frozen prefix gives another output each time."""
    record = Record()
    run(text_recipe(), tmp_path / "run", callbacks=[record])
    assert record.modes[0] == {"", "classifier"}
    assert {"bert.embeddings.dropout", "bert.encoder.layer.0.output.dropout", "dropout"} <= record.modes[1]


# --- What is saved ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def image_run(tmp_path_factory, squares, timm_checkpoint):
    recipe = image_recipe.__wrapped__(squares, timm_checkpoint)()
    return recipe, run(recipe, tmp_path_factory.mktemp("image") / "run")


@pytest.fixture(scope="module")
def text_run(tmp_path_factory, reviews, bert_checkpoint):
    recipe = text_recipe.__wrapped__(reviews, bert_checkpoint)()
    return recipe, run(recipe, tmp_path_factory.mktemp("text") / "run")


def test_an_image_model_loads_in_transformers_and_in_timm(image_run, squares):
    """Trap 22, on a model that was trained."""
    folder = image_run[1].folder / "model"
    pixels = torch.linspace(-1, 1, 3 * 32 * 32).reshape(1, 3, 32, 32)
    wrapped, info = AutoModelForImageClassification.from_pretrained(folder, output_loading_info=True)
    assert not any(info.values())
    plain = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    with torch.no_grad():
        assert torch.equal(wrapped(pixels).logits, plain(pixels))
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
def test_the_best_checkpoint_of_a_stage_is_what_goes_on(request, kind):
    recipe, result = request.getfixturevalue(f"{kind}_run")
    for number, (stage, entry) in enumerate(zip(recipe.stages, result.metrics["stages"], strict=True), 1):
        folder = result.folder / "stages" / f"{number:02d}-{stage.name}"
        log = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
        evaluations = {line["step"]: line["eval_accuracy"] for line in log if "eval_accuracy" in line}
        best = max(evaluations, key=lambda step: (evaluations[step], -step))
        assert entry["best_step"] == best
        assert entry["validation"]["accuracy"] == evaluations[best]
        kept = load_file(folder / f"checkpoint-{best}" / "model.safetensors")
        assert changed(kept, load_file(folder / "model.safetensors")) == set()


@pytest.mark.parametrize("kind", ["image", "text"])
def test_metrics_and_predictions_are_those_of_the_saved_model(request, kind):
    recipe, result = request.getfixturevalue(f"{kind}_run")
    content = json.loads((result.folder / "metrics.json").read_text(encoding="utf-8"))
    assert content == result.metrics
    assert set(content) == {"task", "wall_seconds", "stages", "test", "baselines"}
    assert content["task"] == recipe.task
    for entry, planned in zip(content["stages"], plan(recipe).plan.stages, strict=True):
        assert set(entry) == {
            "name",
            "epochs",
            "steps",
            "best_step",
            "train_seconds",
            "trainable_parameters",
            "total_parameters",
            "validation",
        }
        assert (entry["name"], entry["epochs"], entry["steps"], entry["trainable_parameters"]) == (
            planned.name,
            2.0,
            planned.steps,
            planned.trainable_size,
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
def test_the_manifest_says_that_all_is_done_and_of_what_it_was_made(request, kind):
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
    assert {name: len(value) for name, value in manifest["fingerprints"].items()} == dict.fromkeys(
        ["recipe", "data", "classes", "checkpoint", "architecture"], 64
    )
    assert manifest["versions"]["torch"] == torch.__version__.split("+")[0]
    assert sorted(path.name for path in result.folder.iterdir()) == [
        "manifest.json",
        "metrics.json",
        "model",
        "predictions.parquet",
        "recipe.yaml",
        "stages",
    ]


def test_the_log_of_a_stage_holds_the_rate_of_every_layer_group(image_run):
    """Trap 18: transformers 5.23 logs the rate of the first group only."""
    entries = [entry for entry in log_of(image_run[1].folder, "02-all") if "loss" in entry]
    assert entries
    groups = plan(image_run[0]).plan.stages[1].groups
    for entry in entries:
        share = 1 - entry["step"] / 12
        assert entry["learning_rates"] == [
            [group.layers, pytest.approx(group.lr * share, abs=1e-15)] for group in groups
        ]


@pytest.mark.parametrize("kind", ["image", "text"])
def test_the_saved_recipe_run_again_gives_the_same_bits(tmp_path, request, kind):
    recipe, result = request.getfixturevalue(f"{kind}_run")
    again = load_recipe(result.folder / "recipe.yaml")
    assert again == recipe
    run(again, tmp_path / "again")
    assert_equal_runs(result.folder, tmp_path / "again")
    assert (tmp_path / "again" / "recipe.yaml").read_bytes() == (result.folder / "recipe.yaml").read_bytes()


def test_another_seed_gives_other_weights(tmp_path, text_run):
    recipe, result = text_run
    run(recipe.model_copy(update={"seed": 11}), tmp_path / "other")
    assert changed(weights_of(result.folder), weights_of(tmp_path / "other"))


def test_the_highest_seed_will_do(tmp_path, text_recipe):
    recipe = with_stages(text_recipe(seed=2**32 - 1), *[{"epochs": None, "max_steps": 1, "best": None}] * 2)
    assert run(recipe, tmp_path / "run").metrics["stages"][1]["steps"] == 1


def test_without_validation_the_last_weights_are_kept(tmp_path, text_recipe):
    recipe = text_recipe()
    content = recipe.model_dump(mode="json")
    content["data"]["split"] = {"validation": 0.0, "test": 0.0}
    metrics = run(parse_recipe(content), tmp_path / "run").metrics
    assert [(entry["best_step"], entry["validation"]) for entry in metrics["stages"]] == [(None, {})] * 2
    assert (metrics["test"], metrics["baselines"]) == ({}, {})
    assert not (tmp_path / "run" / "predictions.parquet").exists()
    last = load_file(tmp_path / "run" / "stages" / "02-all" / "checkpoint-10" / "model.safetensors")
    assert changed(last, weights_of(tmp_path / "run")) == set()


@pytest.mark.parametrize("schedule", ["linear", "cosine", "constant", {"name": "polynomial", "power": 2.0}])
def test_every_schedule_falls_as_it_says_after_its_warmup(tmp_path, text_recipe, schedule):
    rates = []

    class Rates(TrainerCallback):
        def on_pre_optimizer_step(self, args, state, control, **kwargs):
            rates.append(kwargs["optimizer"].param_groups[0]["lr"])

    recipe = with_stages(
        text_recipe(),
        {"epochs": None, "max_steps": 8, "schedule": schedule, "warmup": 2, "lr": 0.1},
        {"epochs": None, "max_steps": 1},
    )
    run(recipe, tmp_path / "run", callbacks=[Rates()])
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
    run(recipe, tmp_path / "run", callbacks=[Rates()])
    groups = plan(recipe).plan.stages[1].groups
    steps = plan(recipe).plan.stages[1].steps
    expected = [[group.lr * (1 - step / steps) ** 0.9 for group in groups] for step in range(steps)]
    torch.testing.assert_close(torch.tensor(rates[1:]), torch.tensor(expected), rtol=1e-12, atol=0)


# --- Interrupted and resumed ------------------------------------------------------------------------------------


def interrupt(recipe, folder, stop):
    with pytest.raises(KeyboardInterrupt):
        run(recipe, folder, callbacks=[stop])
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["state"] == "running"
    assert not (folder / "model").exists()


STOPS = [
    ("head", 6, "save"),  # after the first epoch's checkpoint
    ("head", 12, "save"),  # after the last checkpoint of the stage
    ("head", 3, "begin"),  # before there is any checkpoint
    ("head", 8, "ctrl-c"),  # inside the second epoch
    ("all", 0, "begin"),  # between the stages
    ("all", 6, "save"),
    ("all", 12, "save"),
    ("all", 2, "ctrl-c"),
    ("all", 9, "begin"),
]
STOP_IDS = [f"{stage}-{moment}-{step}" for stage, step, moment in STOPS]


@pytest.mark.parametrize("stop", STOPS, ids=STOP_IDS)
def test_an_interrupted_image_run_ends_as_if_it_had_not_been(tmp_path, image_run, stop):
    recipe, result = image_run
    interrupt(recipe, tmp_path / "run", Stop(*stop))
    run(recipe, tmp_path / "run", resume=True)
    assert_equal_runs(result.folder, tmp_path / "run")


@pytest.mark.parametrize(
    "stop", [("head", 4, "save"), ("all", 1, "ctrl-c"), ("all", 4, "save"), ("all", 6, "ctrl-c")]
)
def test_an_interrupted_text_run_ends_as_if_it_had_not_been(tmp_path, text_run, stop):
    recipe, result = text_run
    interrupt(recipe, tmp_path / "run", Stop(*stop))
    run(recipe, tmp_path / "run", resume=True)
    assert_equal_runs(result.folder, tmp_path / "run")


@pytest.mark.parametrize("stage", ["head", "all"])
def test_an_interrupt_in_the_last_step_of_an_epoch_skips_no_evaluation(tmp_path, text_run, stage):
    """A checkpoint written before the epoch's evaluation would resume in the next epoch."""
    recipe, result = text_run
    interrupt(recipe, tmp_path / "run", Stop(stage, 3, "ctrl-c"))
    run(recipe, tmp_path / "run", resume=True)
    assert_equal_runs(result.folder, tmp_path / "run")


@pytest.mark.parametrize("step", [4, 5])
def test_an_interrupt_between_two_logs_changes_none_of_them(tmp_path, text_recipe, step):
    """The Trainer starts its mean of the loss anew when it resumes."""
    recipe = with_stages(text_recipe(), *[{"batch_size": 1, "accumulation": 2, "epochs": 1.0}] * 2)
    assert plan(recipe).plan.stages[0].steps >= 10
    run(recipe, tmp_path / "whole")
    interrupt(recipe, tmp_path / "run", Stop("all", step, "ctrl-c"))
    run(recipe, tmp_path / "run", resume=True)
    assert_equal_runs(tmp_path / "whole", tmp_path / "run")


def test_a_run_that_is_interrupted_again_and_again_ends_the_same(tmp_path, text_run):
    recipe, result = text_run
    interrupt(recipe, tmp_path / "run", Stop("head", 1, "ctrl-c"))
    for stop in [("head", 5, "ctrl-c"), ("all", 1, "ctrl-c"), ("all", 4, "save"), ("all", 6, "begin")]:
        with pytest.raises(KeyboardInterrupt):
            run(recipe, tmp_path / "run", resume=True, callbacks=[Stop(*stop)])
    run(recipe, tmp_path / "run", resume=True)
    assert_equal_runs(result.folder, tmp_path / "run")


@pytest.mark.parametrize("stop", [("head", 8, "ctrl-c"), ("all", 6, "save")])
def test_an_interrupted_run_with_a_data_loader_process_ends_the_same(tmp_path, image_run, stop):
    recipe = image_run[0]
    content = recipe.model_dump(mode="json")
    content["data"]["workers"] = 1
    content["stages"] = [{**stage, "epochs": 2.0} for stage in content["stages"]]
    recipe = parse_recipe(content)
    interrupt(recipe, tmp_path / "run", Stop(*stop))
    run(recipe, tmp_path / "run", resume=True)
    # the worker augments as the main process does, so that even the number of workers changes nothing
    assert_equal_runs(image_run[1].folder, tmp_path / "run")


@pytest.mark.parametrize("stop", [("head", 8, "save"), ("head", 12, "save"), ("head", 9, "ctrl-c")])
def test_early_stopping_counts_on_after_an_interruption(tmp_path, text_recipe, stop):
    """Trap 16: transformers 5.23 restores no state of a callback unless it is told to."""
    endless = {"epochs": 6.0, "lr": 1e-6, "early_stopping": {"patience": 2, "threshold": 0.5}}
    recipe = with_stages(text_recipe(), endless, {"epochs": None, "max_steps": 1})
    whole = run(recipe, tmp_path / "whole").metrics["stages"][0]
    assert whole["steps"] == 12
    interrupt(recipe, tmp_path / "run", Stop(*stop))
    assert run(recipe, tmp_path / "run", resume=True).metrics["stages"][0]["steps"] == 12
    assert_equal_runs(tmp_path / "whole", tmp_path / "run")


def test_early_stopping_starts_anew_in_each_stage(tmp_path, text_recipe):
    """Trap 17: a best metric carried over a transition would stop the next stage in its first dip."""
    endless = {"epochs": 6.0, "lr": 1e-6, "early_stopping": {"patience": 1, "threshold": 0.5}}
    stages = run(with_stages(text_recipe(), endless, endless), tmp_path / "run").metrics["stages"]
    assert [entry["steps"] for entry in stages] == [8, 8]


def test_a_half_written_checkpoint_is_passed_over(tmp_path, text_run):
    recipe, result = text_run
    interrupt(recipe, tmp_path / "run", Stop("all", 4, "save"))
    half = tmp_path / "run" / "stages" / "02-all" / "checkpoint-7"
    half.mkdir()
    (half / "model.safetensors").write_bytes(b"half")
    run(recipe, tmp_path / "run", resume=True)
    assert_equal_runs(result.folder, tmp_path / "run")


def test_a_run_that_was_moved_goes_on_where_it_is(tmp_path, text_recipe):
    recipe = with_stages(text_recipe(), *[{"lr": 1e-5}] * 2)
    run(recipe, tmp_path / "whole")
    interrupt(recipe, tmp_path / "old", Stop("all", 8, "save"))
    (tmp_path / "old").rename(tmp_path / "new")
    run(recipe, tmp_path / "new", resume=True)
    # the best checkpoint is not the last one here
    assert json.loads((tmp_path / "new" / "metrics.json").read_text())["stages"][1]["best_step"] == 4
    assert_equal_runs(tmp_path / "whole", tmp_path / "new")


def test_a_finished_run_can_be_resumed_and_stays_as_it_is(tmp_path, text_run):
    recipe, result = text_run
    shutil.copytree(result.folder, tmp_path / "run")
    run(recipe, tmp_path / "run", resume=True)
    assert_equal_runs(result.folder, tmp_path / "run")


def test_a_run_that_was_killed_while_it_evaluated_is_finished(tmp_path, text_run, monkeypatch):
    recipe, result = text_run

    def killed(*args, **kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("hf_finetune.run.evaluate_model", killed)
        with pytest.raises(KeyboardInterrupt):
            run(recipe, tmp_path / "run")
    assert not (tmp_path / "run" / "metrics.json").exists()
    run(recipe, tmp_path / "run", resume=True)
    assert_equal_runs(result.folder, tmp_path / "run")


def refusal(function):
    with pytest.raises(InputError) as caught:
        function()
    return str(caught.value)


def test_resuming_what_never_began_is_an_error(tmp_path, text_recipe):
    assert refusal(lambda: run(text_recipe(), tmp_path / "run", resume=True)) == (
        f"{tmp_path / 'run' / 'manifest.json'} must be the manifest of a run. Got no such file. "
        "Begin the run without --resume."
    )
    assert refusal(lambda: run(text_recipe(), resume=True)) == (
        "--resume must come with the run's folder. Add --output-dir RUN."
    )
    assert list(tmp_path.iterdir()) == []


# --- What is refused, and leaves nothing behind -----------------------------------------------------------------


def test_a_folder_that_is_not_empty_is_refused(tmp_path, text_recipe):
    (tmp_path / "notes.txt").write_text("mine")
    assert refusal(lambda: run(text_recipe(), tmp_path)) == (
        f"--output-dir must be empty or not exist. Got {tmp_path}. Name another folder."
    )
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    assert refusal(lambda: run(text_recipe(), tmp_path / "notes.txt")) == (
        f"--output-dir must be a folder. Got the file {tmp_path / 'notes.txt'}."
    )


def test_a_folder_inside_a_file_is_refused(tmp_path, text_recipe):
    (tmp_path / "file").write_text("mine")
    assert refusal(lambda: run(text_recipe(), tmp_path / "file" / "run")) == (
        f"--output-dir must be in a folder that can be written to. Got {tmp_path / 'file'}."
    )


def test_every_problem_of_recipe_and_data_is_told_at_once(tmp_path, text_recipe):
    recipe = with_stages(
        text_recipe(metrics=["acuracy"]),
        {"train": "last:9", "optimizer": "adamww"},
        {"best": {"metric": "rmse"}},
    )
    message = refusal(lambda: run(recipe, tmp_path / "run")).splitlines()
    assert [line.split(" must ")[0] for line in message] == [
        "stages[0].optimizer",
        "metrics[0]",
        "stages[1].best.metric",
        "stages[0].train",
    ]
    assert not (tmp_path / "run").exists()


def test_what_needs_a_validation_split_is_refused_without_one(tmp_path, text_recipe):
    content = with_stages(text_recipe(), {"early_stopping": 2}, {"best": "loss"}).model_dump(mode="json")
    content["data"]["split"]["validation"] = 0.0
    assert refusal(lambda: run(parse_recipe(content), tmp_path / "run")) == (
        "stages[0].early_stopping must have a validation split to look at. "
        "Set data.split.validation above 0, or leave it out.\n"
        "stages[1].best.metric must have a validation split to look at. "
        "Set data.split.validation above 0, or leave it out."
    )
    assert not (tmp_path / "run").exists()


def test_a_checkpoint_with_a_gap_is_refused_and_nothing_is_written(tmp_path, bert_checkpoint, text_recipe):
    shutil.copytree(bert_checkpoint, tmp_path / "bert")
    weights = load_file(tmp_path / "bert" / "model.safetensors")
    del weights["bert.pooler.dense.bias"]
    save_file(weights, tmp_path / "bert" / "model.safetensors", {"format": "pt"})
    content = {**text_recipe().model_dump(mode="json"), "model": str(tmp_path / "bert")}
    assert refusal(lambda: run(parse_recipe(content), tmp_path / "run")) == (
        "model.path must hold every weight outside the head; it lacks bert.pooler.dense.bias. "
        f"Got {str(tmp_path / 'bert')!r}. Name it in model.allow_missing if that is meant."
    )
    assert not (tmp_path / "run").exists()


def test_truncated_weights_are_refused_and_nothing_is_written(tmp_path, bert_checkpoint, text_recipe):
    shutil.copytree(bert_checkpoint, tmp_path / "bert")
    path = tmp_path / "bert" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    content = {**text_recipe().model_dump(mode="json"), "model": str(tmp_path / "bert")}
    assert refusal(lambda: run(parse_recipe(content), tmp_path / "run")).startswith(
        f"model.path must hold whole weight files. Got {str(tmp_path / 'bert')!r}. "
    )
    assert not (tmp_path / "run").exists()


def test_an_image_size_that_the_checkpoint_cannot_take_is_refused_and_nothing_is_written(
    tmp_path, tiny_model, image_recipe, squares
):
    tiny_model("vit").save_pretrained(tmp_path / "vit")
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(tmp_path / "vit")
    content = image_recipe().model_dump(mode="json")
    content["model"] = str(tmp_path / "vit")
    content["data"]["image_size"] = 48
    assert refusal(lambda: run(parse_recipe(content), tmp_path / "run")) == (
        "data.image_size must suit the checkpoint. Got 48. "
        "The model says: Input image size (48*48) doesn't match model (32*32)."
    )
    assert not (tmp_path / "run").exists()


def test_the_image_size_of_a_timm_checkpoint_is_that_of_training_and_inference(tmp_path, image_recipe):
    sizes = set()

    class Size(TrainerCallback):
        def on_train_begin(self, args, state, control, **kwargs):
            kwargs["model"].register_forward_pre_hook(
                lambda module, args, inputs: sizes.add(tuple(inputs["pixel_values"].shape[2:])),
                with_kwargs=True,
            )

    content = with_stages(image_recipe(), *[{"epochs": None, "max_steps": 1}] * 2).model_dump(mode="json")
    content["data"]["image_size"] = 40
    run(parse_recipe(content), tmp_path / "run", callbacks=[Size()])
    assert sizes == {(40, 40)}
    classifier = load_classifier(tmp_path / "run" / "model")
    pixels = classifier.pipe.image_processor(Image.new("RGB", (90, 60)), return_tensors="pt")["pixel_values"]
    assert pixels.shape == (1, 3, 40, 40)


def test_a_run_that_diverges_says_so(tmp_path, text_recipe):
    recipe = with_stages(text_recipe(), {"lr": 1e38, "clip": None, "optimizer": "sgd"}, {})
    with pytest.raises(DivergedError) as caught:
        run(recipe, tmp_path / "run")
    assert str(caught.value).startswith("Stage 'head' diverged: the loss is ")
    assert not list((tmp_path / "run" / "stages" / "01-head").glob("checkpoint-*"))


# --- The plan ---------------------------------------------------------------------------------------------------


def test_the_plan_says_what_the_run_does_and_writes_nothing(tmp_path, image_run, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipe, result = image_run
    report = plan(recipe)
    assert report.examples == 24
    for planned, entry in zip(report.plan.stages, result.metrics["stages"], strict=True):
        assert (planned.steps, planned.trainable_size) == (entry["steps"], entry["trainable_parameters"])
    assert list(tmp_path.iterdir()) == []


def test_a_plan_without_the_data_counts_two_labels(tmp_path, text_recipe):
    content = text_recipe().model_dump(mode="json")
    content["data"]["path"] = str(tmp_path / "none.csv")
    report = plan(parse_recipe(content))
    assert report.examples is None
    assert [stage.steps for stage in report.plan.stages] == [None, None]
    assert report.notes == (
        f"The data {str(tmp_path / 'none.csv')!r} is not at hand: its labels are counted as 2, its steps are unknown.",
    )


def test_the_layout_of_the_plan_is_that_of_the_model(image_run):
    recipe, result = image_run
    model = AutoModelForImageClassification.from_pretrained(result.folder / "model")
    assert read_layout(model) == plan(recipe).plan.layout
    assert head_names(model) == list(plan(recipe).plan.stages[0].trainable)
    assert dump_recipe(recipe) == (result.folder / "recipe.yaml").read_text(encoding="utf-8")
