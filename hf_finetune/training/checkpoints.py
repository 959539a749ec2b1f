"""Checkpoints of a stage: each is sealed with checksums once all its files are on disk, so damage is detected."""

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hf_finetune.errors import InputError, Problem
from hf_finetune.files import atomic_file
from hf_finetune.models.tensor_files import STATE_ERRORS, broken_state

__all__ = [
    "SEAL",
    "checkpoint_step",
    "is_intact",
    "last_checkpoint",
    "remove_old_checkpoints",
    "report_broken_state",
    "seal_checkpoint",
    "stage_folder",
    "unsafe_checkpoint",
]

logger = logging.getLogger(__name__)

SEAL = "whole.json"
"""File in a checkpoint with the size and the SHA-256 of its files."""


def stage_folder(run: Path, index: int, name: str) -> Path:
    """Return the folder of a stage: ``RUN/stages/01-head``.

    Args:
        run: Run directory.
        index: Index of the stage, from 0.
        name: Name of the stage.
    """
    return run / "stages" / f"{index + 1:02d}-{name}"


def seal_checkpoint(folder: Path) -> None:
    """Write the seal of a checkpoint: size (bytes) and SHA-256 of each of its files.

    The files are flushed to disk before the seal is written, so that a power cut leaves no seal on truncated files.

    Args:
        folder: Folder of the checkpoint; no process may still be writing to it.
    """
    files = {str(path.relative_to(folder)): _digest(path) for path in _files(folder)}
    for path in _files(folder):
        _sync(path)
    with atomic_file(folder / SEAL) as temporary:
        temporary.write_text(json.dumps({"files": files}, indent=1) + "\n", encoding="utf-8")
        _sync(temporary)
    _sync(folder)


def is_intact(folder: Path) -> bool:
    """Return whether a checkpoint is sealed and unchanged since: no file missing, truncated or modified.

    Args:
        folder: Folder of the checkpoint.
    """
    try:
        files = json.loads((folder / SEAL).read_text(encoding="utf-8"))["files"]
        return all(_digest(folder / name) == digest for name, digest in files.items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def last_checkpoint(folder: Path) -> Path | None:
    """Return the newest checkpoint from which a stage can resume, or None.

    The checkpoint and the best one up to its step must be intact. Incomplete and damaged checkpoints are removed, so
    that nothing else loads them; damaged ones are logged as a warning. The checkpoint of step 0 contains the initial
    weights of the stage: it may be the best one, but a stage does not resume from it.

    Args:
        folder: Folder of the stage.
    """
    intact: dict[int, Path] = {}
    for path in folder.glob("checkpoint-*"):
        if is_intact(path):
            intact[checkpoint_step(path)] = path
        else:
            if (path / SEAL).exists():
                logger.warning(
                    f"{path} is ignored and removed: its files have changed since they were written."
                )
            shutil.rmtree(path, ignore_errors=True)
    for step in sorted(intact.keys() - {0}, reverse=True):
        best = _state(intact[step]).get("best_global_step")
        if best is None or best in intact:
            return intact[step]
        logger.warning(
            f"{intact[step]} is ignored and removed: its best checkpoint, checkpoint-{best}, is missing."
        )
        shutil.rmtree(intact[step], ignore_errors=True)
    return None


def checkpoint_step(path: Path) -> int:
    """Return the optimizer step at which an intact checkpoint was written.

    Args:
        path: Folder of the checkpoint.
    """
    return int(_state(path)["global_step"])


def remove_old_checkpoints(folder: Path, best_step: int | None) -> None:
    """Remove all checkpoints of a stage but the newest and the best, or the newest two if the newest is the best.

    Call it once the newest checkpoint is sealed, so that a kill at any moment leaves one to resume from.

    Args:
        folder: Folder of the stage.
        best_step: Optimizer step of the best checkpoint so far; None if no metric selects one.
    """
    checkpoints = {int(path.name.rpartition("-")[2]): path for path in folder.glob("checkpoint-*")}
    *older, newest = sorted(checkpoints)
    retained = {newest, best_step if best_step in older else max(older, default=newest)}
    for step in checkpoints.keys() - retained:
        shutil.rmtree(checkpoints[step], ignore_errors=True)


def unsafe_checkpoint(folder: Path) -> Problem:
    """Return the problem of a checkpoint whose pickled state contains objects other than tensors and plain values.

    Args:
        folder: Folder of the checkpoint.
    """
    rule = "must contain only tensors and plain values"
    repair = (
        "A file contains other objects, which could run code when loaded. No code was run. Start a new run."
    )
    return Problem(str(folder), rule, repair=repair)


@contextmanager
def report_broken_state(checkpoint: str | None) -> Iterator[None]:
    """Context manager: convert library errors about malformed state into an ``InputError`` about the checkpoint.

    Args:
        checkpoint: Folder of the checkpoint; None if none is loaded, errors then propagate unchanged.

    Raises:
        InputError: If the state belongs to another optimizer or is no optimizer state. An ``UnpicklingError`` is left
            to the caller.
    """
    try:
        yield
    except STATE_ERRORS as error:
        if checkpoint is None:
            raise
        value = f"{type(error).__name__}: {error}".rstrip(".")
        raise InputError(broken_state(Path(checkpoint), value)) from error


def _state(path: Path) -> dict[str, Any]:
    state: dict[str, Any] = json.loads((path / "trainer_state.json").read_text(encoding="utf-8"))
    return state


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.name != SEAL)


def _digest(path: Path) -> list[Any]:
    with path.open("rb") as stream:
        return [path.stat().st_size, hashlib.file_digest(stream, "sha256").hexdigest()]


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
