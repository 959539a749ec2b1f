"""Bad inputs: run directories, runs to resume, full disks, and training that diverges."""

import contextlib
import os
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

from bad_input_case import Case
from bad_input_steps import config, cut, delete

__all__ = ["CASES"]

DIVERGING = (
    "stages.0.optimizer=sgd stages.0.clip= stages.0.batch_size=1 stages.0.epochs=4 speed.decode_once=false"
)


@contextlib.contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Limit the size of files in bytes: a longer write fails in the middle, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextlib.contextmanager
def unwritable(name: str) -> Iterator[None]:
    """Report the folders of a name as not writable; root can write to any, whatever its mode."""
    ask = os.access

    def access(path: str | os.PathLike[str], mode: int, **options: Any) -> bool:
        return ask(path, mode, **options) and not (mode & os.W_OK and Path(path).name == name)

    with patch("os.access", access):
        yield


CASES = [
    Case(
        "a run directory that is not empty",
        "run recipe.yaml --output-dir photos",
        ("Problem:\n  --output-dir must be empty or not exist. Got photos. Choose another folder."),
    ),
    Case(
        "a file as run directory",
        "run recipe.yaml --output-dir recipe.yaml",
        ("Problem:\n  --output-dir must be a folder. Got the file recipe.yaml."),
    ),
    Case(
        "a run directory inside a file",
        "run recipe.yaml --output-dir recipe.yaml/new",
        ("Problem:\n  --output-dir must be in a writable folder. Got ./recipe.yaml."),
    ),
    Case(
        "a run directory in a read-only folder",
        "run recipe.yaml --output-dir vit/new",
        ("Problem:\n  --output-dir must be in a writable folder. Got ./vit."),
        during=lambda: unwritable("vit"),
    ),
    Case(
        "nothing to resume",
        "run recipe.yaml --resume",
        ("Problem:\n  --resume found no run of recipe in runs/. Add --output-dir RUN."),
    ),
    Case(
        "a folder to resume that contains no run",
        "run recipe.yaml --output-dir photos --resume",
        (
            "Problem:\n"
            "  photos/manifest.json must be the manifest of a run. Got no such file. Start the run "
            "without --resume."
        ),
    ),
    Case(
        "a run with a truncated manifest",
        "run recipe.yaml --output-dir run --resume",
        ("Problem:\n  run/manifest.json must be the manifest of a run. Got a damaged file."),
        cut("run/manifest.json", 40),
    ),
    Case(
        "a run resumed with a changed recipe",
        "run recipe.yaml stages.0.lr=1e-3 --output-dir run --resume",
        (
            "Problem:\n"
            "  The recipe has changed since the run started: stages.0.lr: 0.01 -> 0.001. Resume with "
            "run/recipe.yaml, add --allow-changes to accept the changes, or start a new run."
        ),
    ),
    Case(
        "a run resumed with changed data",
        "run recipe.yaml --output-dir run --resume",
        (
            "Problem:\n"
            "  The data has changed since the run started. Add --allow-changes to accept the "
            "changes, or start a new run."
        ),
        delete("photos/tea/5.png"),
    ),
    Case(
        "a run resumed with a changed checkpoint",
        "run recipe.yaml --output-dir run --resume",
        (
            "Problem:\n"
            "  The checkpoint has changed since the run started. Add --allow-changes to "
            "accept the changes, or start a new run."
        ),
        config("vit/config.json", layer_norm_eps=1e-6),
    ),
    Case(
        "a learning rate with which training diverges",
        f"run recipe.yaml {DIVERGING} stages.0.lr=1e38 --output-dir new",
        (
            "Columns inferred: image from 'image', label from 'label'.\n"
            "Created from train, stratified by class: validation (3 examples), test (3 examples); train "
            "keeps 12 examples.\n"
            "The validation split has only 3 examples: the 95 % confidence interval of accuracy is about "
            "±0.37, so smaller differences between epochs may be due to chance.\n"
            "The checkpoint's head for 2 labels is replaced by a new head for 3 labels.\n"
            "Stage 1 of 1 (head) starts: training 51 of 14,179 parameters, learning rate 1e+38 (head).\n"
            "Stage head: prefix cache not used (caching would save less than 2 s).\n"
            "Stage head, before training: validation loss 2.4745, accuracy 0.3333, f1_macro 0.1667\n"
            "Stopped: Stage 'head' diverged: the loss is nan at step 2. In a new run lower its lr or "
            "set clip."
        ),
        code=1,
        partial="new",
    ),
    Case(
        "a learning rate with which the logits become NaN",
        f"run recipe.yaml {DIVERGING} stages.0.lr=1e9 stages.0.batch_size=2 --output-dir new",
        (
            "Columns inferred: image from 'image', label from 'label'.\n"
            "Created from train, stratified by class: validation (3 examples), test (3 examples); train "
            "keeps 12 examples.\n"
            "The validation split has only 3 examples: the 95 % confidence interval of accuracy is about "
            "±0.37, so smaller differences between epochs may be due to chance.\n"
            "The checkpoint's head for 2 labels is replaced by a new head for 3 labels.\n"
            "Stage 1 of 1 (head) starts: training 51 of 14,179 parameters, learning rate 1e+09 (head).\n"
            "Stage head: prefix cache not used (caching would save less than 2 s).\n"
            "Stage head, before training: validation loss 2.4745, accuracy 0.3333, f1_macro 0.1667\n"
            "Stopped: The model's output on the validation split is not finite. In a new run lower lr, or "
            "use fp32 if the precision is lower."
        ),
        code=1,
        partial="new",
    ),
    Case(
        "a full disk while a checkpoint is written",
        "run recipe.yaml --output-dir new data.split.validation=0",
        (
            "Columns inferred: image from 'image', label from 'label'.\n"
            "Created from train, stratified by class: test (3 examples); train keeps 15 examples.\n"
            "The checkpoint's head for 2 labels is replaced by a new head for 3 labels.\n"
            "Stage 1 of 1 (head) starts: training 51 of 14,179 parameters, learning rate 0.01 (head).\n"
            "Stage head: prefix cache not used (each cached view would be used only once).\n"
            "Stage head, epoch 1 of 1: mean loss of this epoch 2.4253, learning rate 0.01.\n"
            "The disk is full. Files saved before are kept; resume a run with --resume."
        ),
        code=1,
        partial="new",
        during=lambda: largest_file(20_000),
    ),
    Case(
        "a full disk while predictions are written",
        "predict run photos --output found.csv",
        "The disk is full. Files saved before are kept; resume a run with --resume.",
        code=1,
        during=lambda: largest_file(200),
    ),
]
