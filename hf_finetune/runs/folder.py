"""Run directory: choice of the folder, its checks, and its recipe and manifest at the start or resume of a run."""

import errno
import hashlib
import json
import logging
import os
import shutil
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from transformers import PreTrainedConfig

from hf_finetune.distributed import broadcast_from_main, main_process_first
from hf_finetune.errors import InputError, Problem
from hf_finetune.evaluation.classifier import resolve_model_dir
from hf_finetune.files import atomic_file, is_valid_path
from hf_finetune.recipe.load import dump_recipe
from hf_finetune.recipe.schema import Recipe
from hf_finetune.runs.changes import (
    Changes,
    Position,
    cannot_resume,
    change_problems,
    find_changes,
    find_position,
    requires_restart,
)
from hf_finetune.runs.prepared import PreparedRun
from hf_finetune.runs.weights import pretraining_folder
from hf_finetune.training.checkpoints import stage_folder
from hf_finetune.training.manifest import Manifest, StageRecord, determinism, library_versions, read_manifest
from hf_finetune.training.run_lock import LOCK, RunLock

__all__ = [
    "DRAFT_FILE",
    "LEADERBOARD",
    "SEARCH_FOLDER",
    "check_folder",
    "choose_folder",
    "lock_and_read_manifest",
    "make_folder",
    "open_folder",
    "write_manifest",
]

logger = logging.getLogger(__name__)

DRAFT_FILE = "draft.yaml"
"""Recipe in a run directory that was written for its data before the run."""
SEARCH_FOLDER = "search"
"""Folder in a run directory with the search that selected its recipe."""
LEADERBOARD = "leaderboard.csv"
"""Table of the trials of that search."""
_BEFORE_RUN = (LOCK, DRAFT_FILE, SEARCH_FOLDER, LEADERBOARD)


def choose_folder(output_dir: str | Path | None, recipe: Recipe, resume: bool, state: PartialState) -> Path:
    """Return ``output_dir``, or if it is None a folder named after the task and the time, the same on all processes.

    Args:
        output_dir: Folder that the user named; None for the default.
        recipe: Recipe of the run.
        resume: Whether to resume a run.
        state: State of the process.

    Raises:
        InputError: If ``resume`` is set and ``output_dir`` is None.
    """
    if output_dir is not None:
        return Path(output_dir).expanduser()
    if resume:
        raise InputError(Problem("resume", "requires output_dir (--output-dir)"))
    names = [f"runs/{recipe.task}-{datetime.now():%Y%m%d-%H%M%S}"]
    if state.num_processes > 1:
        broadcast_object_list(names)
    return Path(names[0])


def check_folder(folder: Path) -> None:
    """Check that a folder can be the directory of a new run.

    Raises:
        InputError: If the folder is not empty (apart from a lock file, a drafted recipe and a search), or if it cannot
            be created or written to.
    """
    if not is_valid_path(folder):
        raise InputError(Problem("--output-dir", "must be a valid folder name", str(folder)))
    if folder.exists() and not folder.is_dir():
        raise InputError(Problem("--output-dir", "must be a folder", f"the file {folder}"))
    if folder.exists() and any(entry.name not in _BEFORE_RUN for entry in folder.iterdir()):
        repair = "Choose another folder."
        if (folder / "manifest.json").is_file():
            repair = "Choose another folder, or add --resume to continue the run in it."
        raise InputError(Problem("--output-dir", "must be empty or not exist", str(folder), repair))
    existing = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        rule = "must be in a writable folder"
        raise InputError(Problem("--output-dir", rule, str(existing)))


def _acquire_lock(lock: RunLock, state: PartialState, create: Path | None = None) -> None:
    """Lock the run directory on the main process, and create it first if it is new; all processes raise an error."""

    def acquire() -> tuple[Problem, ...]:
        try:
            if create is not None:
                make_folder(create)
            lock.acquire()
            if create is not None:
                check_folder(create)  # another run may have begun and ended since the first check
        except InputError as error:
            lock.release()
            return error.problems
        return ()

    if problems := broadcast_from_main(state, acquire):
        raise InputError(problems)


def _start_run(folder: Path, prepared: PreparedRun, state: PartialState) -> Manifest:
    """Write recipe and manifest of a new run."""
    text = dump_recipe(prepared.requested)
    manifest = Manifest(
        stages=tuple(StageRecord(spec.name) for spec in prepared.requested.stages),
        fingerprints=_fingerprints(prepared),
        versions=library_versions(),
        seed=prepared.requested.seed,
        recipe=prepared.requested.model_dump(mode="json"),
        processes=state.num_processes,
        determinism=_determinism(prepared, state),
    )
    state.wait_for_everyone()
    if state.is_main_process:
        try:
            _write_recipe(folder, text)
            write_manifest(manifest, folder, state)
        except BaseException:
            (folder / "recipe.yaml").unlink(missing_ok=True)
            raise
    state.wait_for_everyone()
    return manifest


def _resume_run(
    folder: Path, prepared: PreparedRun, before: Manifest, state: PartialState, *, allow_changes: bool
) -> Manifest:
    """Check that a run can be resumed, and update its recipe and manifest; stages that must restart are pending."""
    recipe, fingerprints = prepared.requested, _fingerprints(prepared)
    changes = find_changes(before, recipe, fingerprints)
    if changes:
        with main_process_first(state):
            position = find_position(folder, before)
        position = replace(position, restarts=requires_restart(before, changes, prepared, position))
        problems = cannot_resume(before, prepared, fingerprints, position)
        if not allow_changes:
            raise InputError(change_problems(folder, changes, possible=not problems))
        if problems:
            raise InputError(problems)
        logger.info(_resume_message(before, changes, position))
    manifest = replace(
        before, fingerprints=fingerprints, seed=recipe.seed, recipe=recipe.model_dump(mode="json")
    )
    if before.determinism.get("bit_for_bit", True):
        manifest = replace(manifest, determinism=_determinism(prepared, state))
    if changes:
        manifest = _record_changes(manifest, changes, position, recipe)
    state.wait_for_everyone()
    if state.is_main_process:
        _remove_stale_files(folder, manifest)
        write_manifest(manifest, folder, state)
        _write_recipe(folder, dump_recipe(recipe))
    state.wait_for_everyone()
    return manifest


def _record_changes(manifest: Manifest, changes: Changes, position: Position, recipe: Recipe) -> Manifest:
    """Return the manifest with an entry for the changes; stages that restart or have not begun are pending."""
    records = {record.name: record for record in manifest.stages[: position.stage]}
    if position.stage < len(manifest.stages) and not position.restarts:
        records |= {record.name: record for record in manifest.stages[position.stage : position.stage + 1]}
    names = [spec.name for spec in recipe.stages]
    stages = tuple(
        records[name] if name in records and index <= position.stage else StageRecord(name)
        for index, name in enumerate(names)
    )
    stage = names[position.stage] if position.stage < len(names) else None
    entry = {"stage": stage, "step": position.step, "anew": position.restarts, **changes.as_json()}
    return replace(manifest, stages=stages, changes=(*manifest.changes, entry), state="running")


def _resume_message(manifest: Manifest, changes: Changes, position: Position) -> str:
    """Return the log line about the changes and their effect on the stages."""
    stages = [record.name for record in manifest.stages]
    where = "after the last stage"
    if position.stage < len(stages):
        where = f"stage {stages[position.stage]} at step {position.step}"
    words = [f"Resuming {where} with changes: {changes.sentence()}."]
    done = [name for index, name in enumerate(stages[: position.stage]) if _changes_fields_of(changes, index)]
    if done:
        words.append(f"Changed fields of finished stages have no effect: {', '.join(done)}.")
    if position.restarts and position.step:
        words.append(f"Stage {stages[position.stage]} restarts because of the changes.")
    if changes.data and (position.stage or position.step):
        words.append("Earlier training examples may now be in the test split.")
    return " ".join(words)


def _changes_fields_of(changes: Changes, index: int) -> bool:
    return any(path.startswith(f"stages.{index}.") for path in changes.recipe)


def _remove_stale_files(folder: Path, manifest: Manifest) -> None:
    """Remove partial files of a killed process, and the folders of stages that restart."""
    for path in [*folder.glob(".*.part"), *folder.glob("stages/*/.*.part")]:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    started = {
        stage_folder(folder, index, record.name)
        for index, record in enumerate(manifest.stages)
        if record.state != "pending"
    }
    if manifest.pretraining:
        started.add(pretraining_folder(folder))
    for stale in set(folder.glob("stages/*")) - started:
        shutil.rmtree(stale)


def _write_recipe(folder: Path, text: str) -> None:
    with atomic_file(folder / "recipe.yaml") as temporary:
        temporary.write_text(text, encoding="utf-8")


def _determinism(prepared: PreparedRun, state: PartialState) -> dict[str, Any]:
    speed, device = prepared.requested.speed, state.device.type
    machine = (device, torch.backends.cpu.get_cpu_capability(), torch.get_num_threads())
    fields = {"precision": speed.precision, "memory_format": speed.memory_format, "compile": speed.compile}
    measured = [f"speed.{name}" for name, value in fields.items() if value == "auto"]
    precision = "fp32" if speed.precision == "auto" else speed.precision
    content = determinism(*machine, precision, speed.compile is True, state.num_processes, measured)
    if speed.prefix_cache is not None and speed.prefix_cache.views == "auto":
        content["provided"]["prefix_cache"] = "used for the same stages, see metrics.json"
    return content


def _fingerprints(prepared: PreparedRun) -> dict[str, str]:
    layout = [[parameter.name, parameter.size] for parameter in prepared.plan.layout.parameters]
    return {
        "recipe": _sha256(dump_recipe(prepared.requested)),
        "data": _data_fingerprint(prepared),
        "classes": _sha256(json.dumps([prepared.data.target, prepared.data.label_names])),
        "checkpoint": _checkpoints_fingerprint(prepared),
        "architecture": _sha256(json.dumps(layout)),
    }


def _data_fingerprint(prepared: PreparedRun) -> str:
    """Return the fingerprint of all examples, those of the target domain included."""
    labeled, domain_inputs = prepared.data.fingerprint, prepared.domain_inputs
    return labeled if domain_inputs is None else _sha256(json.dumps([labeled, domain_inputs.fingerprint]))


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def make_folder(folder: Path) -> None:
    """Create a run directory, and the folders that contain it.

    Args:
        folder: Run directory; it may exist.

    Raises:
        InputError: If it cannot be created.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise
        rule = "must be a folder that can be created"
        raise InputError(Problem("--output-dir", rule, str(folder), f"{error.strerror}.")) from error


def _checkpoints_fingerprint(prepared: PreparedRun) -> str:
    """Return the fingerprint of the checkpoint and of all teachers."""
    checkpoint = _checkpoint_fingerprint(prepared.requested.model.path, prepared.config)
    paths = [resolve_model_dir(spec.teacher.path) for spec in prepared.requested.stages if spec.teacher]
    teachers = [_checkpoint_fingerprint(str(path), None) for path in paths]
    return _sha256(json.dumps([checkpoint, *teachers])) if teachers else checkpoint


def _checkpoint_fingerprint(path: str, config: PreTrainedConfig | None) -> str:
    digest = hashlib.sha256()
    folder = Path(path)
    if folder.is_dir():
        weights = [*sorted(folder.glob("*.safetensors")), *sorted(folder.glob("*.bin"))]
        for file in (*weights, folder / "config.json"):
            with file.open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
    else:
        digest.update(f"{path}@{getattr(config, '_commit_hash', None)}".encode())
    return digest.hexdigest()


def write_manifest(manifest: Manifest, folder: Path, state: PartialState) -> None:
    """Write ``manifest.json`` to the run directory, on the main process only."""
    if state.is_main_process:
        manifest.write(folder / "manifest.json")


def lock_and_read_manifest(folder: Path, lock: RunLock, state: PartialState) -> Manifest:
    """Take the lock of a run that is resumed, and return its manifest.

    Args:
        folder: Run directory.
        lock: Lock of the run directory.
        state: State of the process: its rank, the number of processes, and the device.

    Returns:
        The manifest of the run.

    Raises:
        InputError: If there is no run, or another process writes to it.
    """
    if folder.is_dir():
        _acquire_lock(lock, state)
    return read_manifest(folder / "manifest.json")


def open_folder(
    folder: Path,
    lock: RunLock,
    prepared: PreparedRun,
    before: Manifest | None,
    state: PartialState,
    *,
    allow_changes: bool,
) -> Manifest:
    """Write the first files of a new run, or continue the manifest of the run that is resumed.

    Args:
        folder: Run directory.
        lock: Lock of the run directory.
        prepared: Checked run.
        before: Manifest of the run that is resumed; None for a new run.
        state: State of the process: its rank, the number of processes, and the device.
        allow_changes: Whether recipe, data or checkpoint may have changed since.

    Returns:
        The manifest of the run.

    Raises:
        InputError: If the folder cannot be used, or a change is not allowed.
    """
    if before is None:
        _acquire_lock(lock, state, create=folder)
        return _start_run(folder, prepared, state)
    return _resume_run(folder, prepared, before, state, allow_changes=allow_changes)
