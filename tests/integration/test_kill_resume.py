"""A run that is killed, at any step or in the middle of any file, ends as without the interruption: bit for bit.

Most kills are SIGKILLs in a forked process, which saves the imports; nothing of Python runs after them.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from run_helpers import NO_PROBE, quick_run
from safetensors.torch import load_file
from transformers import Trainer, TrainerCallback, TrainerState

from hf_finetune.recipe.load import dump_recipe, parse_recipe
from hf_finetune.training.checkpoints import is_intact, last_checkpoint

TIMES = ("runtime", "per_second", "seconds")
STAGES = ("01-head", "02-all")
STEPS = [(stage, step) for stage in STAGES for step in range(4)]
STEP_IDS = [f"{stage}-step-{step}" for stage, step in STEPS]
CHECKPOINT_FILES = (
    "model.safetensors",
    "optimizer.pt",
    "scheduler.pt",
    "rng_state.pth",
    "trainer_state.json",
    "whole.json",
)
EARLIER = re.compile(r"checkpoint-\d+")
kills = {"SIGKILL": 0, "SIGINT": 0, "damage": 0}


def image_recipe(squares, checkpoint, workers=0):
    """Return a recipe of 24 images in 2 steps an epoch, augmented, with BatchNorms that train."""
    common = {"epochs": 2.0, "batch_size": 12, "optimizer": "sgd"}
    return parse_recipe(
        {
            "task": "image-classification",
            "model": str(checkpoint),
            "data": {
                "path": str(squares),
                "augment": "strong",
                "split": {"validation": 0.17, "test": 0.17},
                "workers": workers,
            },
            "stages": [
                {"name": "head", "train": "head", "lr": 0.05, **common},
                {"name": "all", "train": "last:2", "lr": 0.01, "layer_decay": 0.5, **common},
            ],
            "evaluation": NO_PROBE,
            "seed": 3,
        }
    )


def text_recipe(reviews, checkpoint):
    """Return a recipe of 28 texts in 2 steps an epoch of two forward passes each, with dropout and early stopping."""
    common = {"epochs": 2.0, "batch_size": 8, "accumulation": 2, "warmup": 1, "early_stopping": 2}
    return parse_recipe(
        {
            "task": "text-classification",
            "model": str(checkpoint),
            "data": {"path": str(reviews), "split": {"validation": 0.15, "test": 0.15}},
            "stages": [
                {"name": "head", "train": "head", "lr": 0.05, **common},
                {"name": "all", "train": "all", "lr": 0.005, "layer_decay": 0.9, **common},
            ],
            "evaluation": NO_PROBE,
        }
    )


@pytest.fixture(scope="module")
def straight(tmp_path_factory, squares, reviews, timm_checkpoint, bert_checkpoint):
    """Return both recipes, the contents of their uninterrupted runs, and their folders before the second stage.

    Print the number of kills at the end.
    """
    found = {}
    recipes = {"image": image_recipe(squares, timm_checkpoint), "text": text_recipe(reviews, bert_checkpoint)}
    for kind, recipe in recipes.items():
        folder = tmp_path_factory.mktemp(kind)
        quick_run(recipe, folder / "run")
        run_to_the_second_stage(recipe, folder / "half")
        found[kind] = recipe, contents(folder / "run"), folder / "half"
    yield found
    print("\nkilled and resumed:", kills)


# --- Comparison -------------------------------------------------------------------------------------------


def contents(folder):
    """Read all files of a run without times: weights, optimizer states, metrics, predictions and logs."""
    return {
        "model": load_file(folder / "model" / "model.safetensors"),
        "predictions": (folder / "predictions.parquet").read_bytes(),
        "metrics": without_times(json.loads((folder / "metrics.json").read_text(encoding="utf-8"))),
        "files": files_of(folder),
        **{stage: contents_of_stage(folder / "stages" / stage) for stage in STAGES},
    }


def files_of(folder):
    """Return the names of all files, without the step of the checkpoint that a stage has besides its last one.

    If the last one is the best, the other is the one before it, which Ctrl-C may have added in mid-epoch.
    """
    last = [str(last_checkpoint(folder / "stages" / stage).relative_to(folder)) for stage in STAGES]
    names = [str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()]
    return sorted(
        name
        if name.startswith(tuple(f"{path}/" for path in last))
        else EARLIER.sub("checkpoint-earlier", name)
        for name in names
    )


def contents_of_stage(folder):
    last = last_checkpoint(folder)
    states = ("optimizer.pt", "scheduler.pt", "rng_state.pth")
    lines = (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()
    return {
        "weights": load_file(folder / "model.safetensors"),
        "last": last.name,
        "last weights": load_file(last / "model.safetensors"),
        **{name: torch.load(last / name, weights_only=False) for name in states},
        "history": history(json.loads((last / "trainer_state.json").read_text(encoding="utf-8"))),
        # without the summary of the last ``train()``, which counts its own steps
        "log": [without_times(json.loads(line)) for line in lines if "train_loss" not in line],
    }


def history(state):
    names = ("global_step", "epoch", "max_steps", "best_metric", "best_global_step", "total_flos")
    return {**{name: state[name] for name in names}, "log": without_times(state["log_history"])}


def without_times(value):
    if isinstance(value, dict):
        return {
            key: without_times(item) for key, item in value.items() if not any(word in key for word in TIMES)
        }
    return [without_times(item) for item in value] if isinstance(value, list) else value


def differences(one, other, place=""):
    """Return the places where two nests of mappings, lists and tensors are not bit-equal."""
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return [] if one.dtype == other.dtype and torch.equal(one, other) else [place]
    if isinstance(one, dict) and isinstance(other, dict):
        if list(one) != list(other):
            return [f"{place}: {sorted(map(str, one.keys() ^ other.keys()))}"]
        return [found for key in one for found in differences(one[key], other[key], f"{place}/{key}")]
    if isinstance(one, list | tuple) and type(one) is type(other) and len(one) == len(other):
        pairs = enumerate(zip(one, other, strict=True))
        return [found for index, pair in pairs for found in differences(*pair, f"{place}/{index}")]
    same = (one == other) if not hasattr(one, "shape") else bool((one == other).all())
    return [] if type(one) is type(other) and same else [f"{place}: {one!r} is not {other!r}"]


def resume_and_compare(recipe, folder, expected, stage="02-all"):
    """Resume to the end, or to the end of the first stage, to which the expected contents of the second belong."""
    if stage == "01-head":
        run_to_the_second_stage(recipe, folder, resume=True)
        assert differences(contents_of_stage(folder / "stages" / stage), expected[stage]) == []
    else:
        quick_run(recipe, folder, resume=True)
        assert differences(contents(folder), expected) == []


class StopBeforeSecond(TrainerCallback):
    def on_train_begin(self, args, state, control, **kwargs):
        if Path(args.output_dir).name == "02-all":
            raise KeyboardInterrupt


def run_to_the_second_stage(recipe, folder, **options):
    with pytest.raises(KeyboardInterrupt):
        quick_run(recipe, folder, callbacks=[StopBeforeSecond()], **options)


def begun(folder, half, stage):
    """Copy a run whose first stage is complete, if the second one is to be killed."""
    if stage == "02-all":
        shutil.copytree(half, folder)
    return stage == "02-all"


def test_the_comparison_sees_a_single_bit(straight):
    expected = straight["text"][1]
    changed = {**expected, "02-all": {**expected["02-all"]}}
    assert differences(changed, expected) == []
    state = {**expected["02-all"]["optimizer.pt"]}
    state["state"] = {**state["state"], 0: {**state["state"][0], "step": state["state"][0]["step"] + 1}}
    changed["02-all"]["optimizer.pt"] = state
    assert differences(changed, expected) == ["/02-all/optimizer.pt/state/0/step"]


# --- Killed -----------------------------------------------------------------------------------------------------


def die(*args, **kwargs):
    os.kill(os.getpid(), signal.SIGKILL)


def run_until_killed(recipe, folder, *, resume=False, callbacks=(), patch=None):
    """Run in a forked process that is killed on the way."""
    process = os.fork()
    if process == 0:
        try:
            if patch is not None:
                patch()
            quick_run(recipe, folder, resume=resume, callbacks=callbacks)
        finally:
            os._exit(0)
    status = os.waitpid(process, 0)[1]
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
    kills["SIGKILL"] += 1


class At(TrainerCallback):
    """Run an action in the middle of a step, between its backward pass and its optimizer step."""

    def __init__(self, stage, step, action):
        self.stage, self.step, self.action = stage, step, action

    def on_pre_optimizer_step(self, args, state, control, **kwargs):
        if (Path(args.output_dir).name, state.global_step) == (self.stage, self.step):
            self.action()


@pytest.mark.parametrize(("stage", "step"), STEPS, ids=STEP_IDS)
@pytest.mark.parametrize("kind", ["image", "text"])
def test_killed_at_any_step(tmp_path, straight, kind, stage, step):
    recipe, expected, half = straight[kind]
    folder = tmp_path / "run"
    resume = begun(folder, half, stage)
    run_until_killed(recipe, folder, resume=resume, callbacks=[At(stage, step, die)])
    resume_and_compare(recipe, folder, expected, stage)


@pytest.mark.parametrize(("stage", "step"), STEPS, ids=STEP_IDS)
@pytest.mark.parametrize("kind", ["image", "text"])
def test_ctrl_c_at_any_step(tmp_path, straight, kind, stage, step):
    recipe, expected, half = straight[kind]
    folder = tmp_path / "run"
    ctrl_c(recipe, folder, stage, step, resume=begun(folder, half, stage))
    # the step that was interrupted is completed and saved
    assert last_checkpoint(folder / "stages" / stage).name == f"checkpoint-{step + 1}"
    resume_and_compare(recipe, folder, expected, stage)


def ctrl_c(recipe, folder, stage, step, resume):
    interrupt = At(stage, step, lambda: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        quick_run(recipe, folder, resume=resume, callbacks=[interrupt])
    kills["SIGINT"] += 1


def test_stopped_at_every_step_one_after_the_other(tmp_path, straight):
    recipe, expected, _ = straight["text"]
    for index, (stage, step) in enumerate(STEPS):
        ctrl_c(recipe, tmp_path / "run", stage, step, resume=index > 0)
    resume_and_compare(recipe, tmp_path / "run", expected)


@pytest.mark.parametrize(("stage", "step"), [("01-head", 3), ("02-all", 1)])
def test_killed_with_data_loader_processes(tmp_path, straight, squares, timm_checkpoint, stage, step):
    recipe = image_recipe(squares, timm_checkpoint, workers=2)
    run_until_killed(recipe, tmp_path / "run", callbacks=[At(stage, step, die)])
    # the workers augment as the main process does, so that even their number changes nothing
    resume_and_compare(recipe, tmp_path / "run", straight["image"][1])


@pytest.mark.parametrize("step", [6])
def test_the_command_line_killed_from_outside(tmp_path, straight, step):
    """Without a fork: another process kills it as soon as its log has a number of lines."""
    recipe, expected, _ = straight["text"]
    (tmp_path / "recipe.yaml").write_text(dump_recipe(recipe), encoding="utf-8")
    command = [sys.executable, "-m", "hf_finetune", "run", "recipe.yaml", "--output-dir", "run"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    logs = [tmp_path / "run" / "stages" / stage / "log.jsonl" for stage in STAGES]
    while process.poll() is None:
        lines = sum(log.read_text().count('"loss"') for log in logs if log.exists())
        if lines >= step:
            process.kill()
            break
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    kills["SIGKILL"] += 1
    resume_and_compare(recipe, tmp_path / "run", expected)


# --- Killed in the middle of a file -----------------------------------------------------------------------------


def on_call(owner, name, number, before=die):
    """Die in a given call of a function. ``before`` gets its arguments."""
    calls, original = [], getattr(owner, name)

    def patched(*args, **kwargs):
        calls.append(None)
        if len(calls) == number:
            before(*args, **kwargs)
            die()
        return original(*args, **kwargs)

    return lambda: setattr(owner, name, patched)


def half_of(original, where):
    """Call a function, and truncate the file that it wrote to half."""

    def act(*args, **kwargs):
        original(*args, **kwargs)
        path = where(*args)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    return act


def moments():
    from hf_finetune.runs import finish, results, stages, weights
    from hf_finetune.training import stage, trainer

    checkpoint = "checkpoint {}, half of {}"
    parts = {
        "model.safetensors": (trainer.SingleStageTrainer, "_save", lambda self, folder, *rest: Path(folder)),
        "optimizer.pt": (Trainer, "_save_optimizer_and_scheduler", lambda self, folder: Path(folder)),
        "scheduler.pt": (Trainer, "_save_optimizer_and_scheduler", lambda self, folder: Path(folder)),
        "rng_state.pth": (Trainer, "_save_rng_state", lambda self, folder: Path(folder)),
        "trainer_state.json": (TrainerState, "save_to_json", lambda self, path: Path(path).parent),
    }
    for number in (1, 2):  # of each stage
        for name, (owner, method, folder) in parts.items():
            whole = getattr(owner, method)
            cut = half_of(whole, lambda *args, folder=folder, name=name: folder(*args) / name)
            yield checkpoint.format(number, name), on_call(owner, method, number, cut)
        yield f"checkpoint {number}, before its seal", on_call(trainer, "seal_checkpoint", number)
        yield f"checkpoint {number}, before older ones go", on_call(trainer, "remove_old_checkpoints", number)
    yield "restoring the best weights", on_call(Trainer, "_load_best_model", 1)
    yield "writing the stage's weights", on_call(stage, "save_weights", 1)
    yield "between the stages", on_call(stages, "load_stage_weights", 1)
    yield "loading the stage before", on_call(weights, "load_weights", 1)
    yield "loading the last stage", on_call(weights, "load_weights", 2)
    yield "exporting", on_call(results, "export_model", 1)
    yield "exporting, half of it", on_call(results, "export_model", 1, half_export)
    yield "fitting the temperature", on_call(results, "evaluate_model", 1)
    yield "evaluating", on_call(results, "evaluate_model", 2)
    yield "writing the predictions", on_call(results, "write_predictions", 1)
    yield "writing the metrics", on_call(finish, "write_json", 1)
    yield "writing the report", on_call(finish, "write_report", 1)
    yield "writing the card", on_call(finish, "write_card", 1)


def half_export(model, processor, folder):
    folder.mkdir()
    (folder / "config.json").write_text("{", encoding="utf-8")


MOMENTS = dict(moments())


@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_at_a_moment(tmp_path, straight, moment):
    """The stages share their code; between them and after the last one there is more."""
    recipe, expected, half = straight["text"]
    folder = tmp_path / "run"
    stage = "01-head" if moment == "between the stages" else "02-all"
    run_until_killed(recipe, folder, resume=begun(folder, half, stage), patch=MOMENTS[moment])
    resume_and_compare(recipe, folder, expected)


@pytest.mark.parametrize(
    ("name", "damage"), [*((name, "cut off") for name in CHECKPOINT_FILES), ("optimizer.pt", "missing")]
)
def test_a_checkpoint_with_one_damaged_file_is_skipped(tmp_path, straight, name, damage, caplog):
    """The result of a power failure before the disk was synchronized."""
    recipe, expected, half = straight["text"]
    folder = tmp_path / "run"
    ctrl_c(recipe, folder, "02-all", 2, resume=begun(folder, half, "02-all"))
    stage = folder / "stages" / "02-all"
    newest = last_checkpoint(stage)
    assert (newest.name, is_intact(stage / "checkpoint-2")) == ("checkpoint-3", True)
    file = newest / name
    if damage == "missing":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    kills["damage"] += 1
    resume_and_compare(recipe, folder, expected)
    assert f"{newest} is ignored and removed: its files have changed since they were written." in caplog.text
