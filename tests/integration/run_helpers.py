"""Whole runs on tiny models: how they are recorded, stopped and compared."""

import json
import os
import signal
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainerCallback

from hf_finetune.errors import InputError
from hf_finetune.recipe.load import parse_recipe
from hf_finetune.report import page
from hf_finetune.runs.run import run
from hf_finetune.training.checkpoints import last_checkpoint

# Entries of the metrics that hold durations.
TIMES = ("runtime", "per_second", "seconds")
NO_PROBE = {"linear_probe": None}
"""Evaluation of a tiny recipe without the frozen-feature baseline, which takes a quarter of its run."""


def quick_run(recipe, folder=None, **options):
    """Run as ``run`` does, but without figures: they take a fifth of a tiny run, and few tests need them."""
    with patch.object(page, "figures_of", lambda record: []):
        return run(recipe, folder, **options)


def tiny_image_recipe(data, checkpoint, **changes):
    """Return two stages on 24 images in 6 steps an epoch, augmented; see ``NO_PROBE``."""
    common = {"epochs": 2.0, "batch_size": 4, "optimizer": "sgd"}
    content = {
        "task": "image-classification",
        "model": str(checkpoint),
        "data": {
            "path": str(data),
            "augment": "strong",
            "split": {"validation": 0.17, "test": 0.17},
        },
        "stages": [
            {"name": "head", "train": "head", "lr": 0.05, **common},
            {"name": "all", "train": "last:2", "lr": 0.01, "layer_decay": 0.5, **common},
        ],
        "evaluation": NO_PROBE,
        "seed": 3,
    }
    return parse_recipe({**content, **changes})


def tiny_text_recipe(data, checkpoint, **changes):
    """Return two stages on 28 texts in 4 steps an epoch, with dropout; see ``NO_PROBE``."""
    common = {"epochs": 2.0, "batch_size": 4, "accumulation": 2}
    content = {
        "task": "text-classification",
        "model": checkpoint if isinstance(checkpoint, dict) else str(checkpoint),
        "data": {"path": str(data), "split": {"validation": 0.15, "test": 0.15}},
        "stages": [
            {"name": "head", "train": "head", "lr": 0.05, **common},
            {"name": "all", "train": "all", "lr": 0.005, "layer_decay": 0.9, **common},
        ],
        "evaluation": NO_PROBE,
    }
    return parse_recipe({**content, **changes})


def with_stages(recipe, *changes):
    """Change fields of the stages of a recipe, one mapping for each stage."""
    content = recipe.model_dump(mode="json")
    for stage, change in zip(content["stages"], changes, strict=True):
        stage.update(change)
    return parse_recipe(content)


def first_epoch_is_best(metrics, best, *args, **kwargs):
    """Replacement of ``is_better`` by which only the first epoch improves on the initial weights."""
    return best is None or metrics["epoch"] == 1.0


class Record(TrainerCallback):
    """Record the model's state around each stage, and the parameters in the optimizer."""

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
    """Stop as if killed: at the start of a step of a stage, right after a checkpoint, or at the stage's end."""

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

    def on_train_end(self, args, state, control, **kwargs):
        if self.happens("ctrl-c at the end", args, state):
            os.kill(os.getpid(), signal.SIGINT)


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


def metrics_of(folder):
    """Return the metrics that a run has written."""
    return json.loads((folder / "metrics.json").read_text(encoding="utf-8"))


def log_of(folder, stage):
    """Read a stage's log without the summary of the last ``train()`` call, which counts its own steps."""
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
        # the epochs that were trained, even if the initial weights of the stage are better
        last, other_last = (last_checkpoint(folder / "stages" / stage) for folder in (one, other))
        assert last.name == other_last.name != "checkpoint-0"
        ends = [load_file(checkpoint / "model.safetensors") for checkpoint in (last, other_last)]
        assert changed(*ends) == set()


def interrupt(recipe, folder, stop):
    with pytest.raises(KeyboardInterrupt):
        quick_run(recipe, folder, callbacks=[stop])
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["state"] == "running"
    assert not (folder / "model").exists()


def refusal(function):
    with pytest.raises(InputError) as caught:
        function()
    return str(caught.value)


class StopAtStep(TrainerCallback):
    """Stop like a second Ctrl-C after a step of a stage; record the rates and losses of each step."""

    def __init__(self, stage=None, step=None):
        self.stage, self.step, self.steps, self.rates = stage, step, [], []

    def on_pre_optimizer_step(self, args, state, control, **kwargs):
        self.rates.append(kwargs["optimizer"].param_groups[0]["lr"])

    def on_log(self, args, state, control, logs=None, **kwargs):
        if "loss" in logs:
            self.steps.append((args.output_dir.rpartition("-")[2], state.global_step))

    def on_step_begin(self, args, state, control, **kwargs):
        if args.output_dir.endswith(f"-{self.stage}") and state.global_step == self.step:
            raise KeyboardInterrupt


def small_recipe_in(place):
    """Return two stages on the 28 texts of a folder, each of 2 epochs of 4 steps, from the checkpoint in it."""
    common = {"epochs": 2.0, "batch_size": 8}
    return parse_recipe(
        {
            "task": "text-classification",
            "model": str(place / "bert"),
            "data": {"path": str(place / "reviews.csv"), "split": {"validation": 0.15, "test": 0.15}},
            "stages": [
                {"name": "head", "train": "head", "lr": 0.05, **common},
                {"name": "all", "train": "all", "lr": 0.005, **common},
            ],
            "evaluation": NO_PROBE,
        }
    )
