"""The run directory: which folder, whether it may be used, and of what the run in it was made."""

import errno
import hashlib
import os
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from transformers import PreTrainedConfig

from hf_finetune.errors import InputError, Problem
from hf_finetune.files import replacing
from hf_finetune.ready import Ready
from hf_finetune.recipe import Recipe, dump_recipe
from hf_finetune.staging.manifest import Manifest, StageRecord, determinism, library_versions

__all__ = ["begin_run", "check_folder", "choose_folder", "write_manifest"]


def choose_folder(output_dir: str | Path | None, recipe: Recipe, resume: bool, state: PartialState) -> Path:
    """Give the folder that was named, or name one on which all processes agree.

    Raises:
        InputError: If a run is to be resumed and none was named.
    """
    if output_dir is not None:
        return Path(output_dir).expanduser()
    if resume:
        raise InputError(Problem("--resume", "must come with the run's folder", "", "Add --output-dir RUN."))
    names = [f"runs/{recipe.task}-{datetime.now():%Y%m%d-%H%M%S}"]
    if state.num_processes > 1:
        broadcast_object_list(names)
    return Path(names[0])


def check_folder(folder: Path) -> None:
    """Refuse a folder that holds something, or cannot be made.

    Raises:
        InputError: If the folder cannot be used.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(Problem("--output-dir", "must be a folder", f"the file {folder}"))
    if folder.exists() and any(folder.iterdir()):
        repair = "Name another folder."
        if (folder / "manifest.json").is_file():
            repair = "Name another folder, or add --resume to go on with the run in it."
        raise InputError(Problem("--output-dir", "must be empty or not exist", str(folder), repair))
    existing = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        rule = "must be in a folder that can be written to"
        raise InputError(Problem("--output-dir", rule, str(existing)))


def begin_run(folder: Path, ready: Ready, before: Manifest | None, state: PartialState) -> Manifest:
    """Begin a run directory, or make sure that the run in it is of this recipe, data and checkpoint.

    Raises:
        InputError: If it is of others, or if the folder cannot be made.
    """
    text = dump_recipe(ready.recipe)
    fingerprints = {
        "recipe": hashlib.sha256(text.encode()).hexdigest(),
        "data": ready.data.fingerprint,
        "checkpoint": _checkpoint_fingerprint(ready.recipe.model.path, ready.config),
    }
    if before is not None:
        _check_unchanged(folder, ready.recipe, before, fingerprints)
        return before
    stages = tuple(StageRecord(stage.name) for stage in ready.recipe.stages)
    speed, device = ready.recipe.speed, state.device.type
    machine = (device, torch.backends.cpu.get_cpu_capability(), torch.get_num_threads())
    repeatable = determinism(*machine, speed.precision, speed.compile, state.num_processes)
    manifest = Manifest(stages, fingerprints, library_versions(), ready.recipe.seed, repeatable)
    state.wait_for_everyone()
    if state.is_main_process:
        _make_folder(folder)
        try:
            with replacing(folder / "recipe.yaml") as temporary:
                temporary.write_text(text, encoding="utf-8")
            write_manifest(manifest, folder, state)
        except BaseException:
            (folder / "recipe.yaml").unlink(missing_ok=True)
            raise
    state.wait_for_everyone()
    return manifest


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise
        rule = "must be a folder that can be made"
        raise InputError(Problem("--output-dir", rule, str(folder), f"{error.strerror}.")) from error


def _check_unchanged(
    folder: Path, recipe: Recipe, manifest: Manifest, fingerprints: Mapping[str, str]
) -> None:
    """Refuse to go on with something else: the result would be of neither recipe."""
    problems = []
    if manifest.fingerprints["recipe"] != fingerprints["recipe"]:
        before = (folder / "recipe.yaml").read_text(encoding="utf-8").splitlines()
        after = dump_recipe(recipe).splitlines()
        changed = next(
            (
                f"{old.strip()!r} where it was {new.strip()!r}"
                for new, old in zip(before, after, strict=False)
                if old != new
            ),
            "more fields",
        )
        repair = f"Resume with {folder / 'recipe.yaml'}, or begin a new run."
        problems.append(
            Problem("--resume", "must go on with the recipe that the run began with", changed, repair)
        )
    same_recipe = not problems
    for name in ("data", "checkpoint"):
        if same_recipe and manifest.fingerprints[name] != fingerprints[name]:
            problems.append(
                Problem(
                    "--resume",
                    f"must go on with the {name} that the run began with",
                    "",
                    "Begin a new run.",
                )
            )
    if problems:
        raise InputError(problems)


def _checkpoint_fingerprint(path: str, config: PreTrainedConfig) -> str:
    digest = hashlib.sha256()
    folder = Path(path)
    if folder.is_dir():
        for file in (
            sorted(folder.glob("*.safetensors")) + sorted(folder.glob("*.bin")) + [folder / "config.json"]
        ):
            with file.open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
    else:
        digest.update(f"{path}@{getattr(config, '_commit_hash', None)}".encode())
    return digest.hexdigest()


def write_manifest(manifest: Manifest, folder: Path, state: PartialState) -> None:
    """Write down how far the run is; only the first process does."""
    if state.is_main_process:
        manifest.write(folder / "manifest.json")
