"""Checkpoints that are made from the training split, and written to the cache: new models, and new vocabularies."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock

from hf_finetune.cache.cache_dir import cache_folder
from hf_finetune.data.prepare import LabeledData
from hf_finetune.errors import InputError, Problem
from hf_finetune.files import atomic_folder
from hf_finetune.recipe.paths import missing_checkpoint
from hf_finetune.recipe.schema import Recipe
from hf_finetune.runs.prepared import UNKNOWN_DATA
from hf_finetune.tasks import TASKS

__all__ = ["needs_data", "with_new_model"]

_FORMAT = 2
"""Version of the checkpoints; those of another version are not used."""


def with_new_model(recipe: Recipe, data_by_task: Mapping[str, LabeledData]) -> tuple[Recipe, tuple[str, ...]]:
    """Return a recipe whose ``model.path`` is a folder made from the training split, and a note.

    That is a new model if the recipe has ``model.new``; or the checkpoint with a vocabulary for the labels, if it needs
    one but has none; otherwise the recipe is returned unchanged.

    The folder is in the cache. Its name, and the weights, depend only on the training split, the fields of the recipe
    and its seed, so that every process and a resumed run use the same model.

    Args:
        recipe: Recipe of a run.
        data_by_task: Data of each task; a new model has a single one.

    Raises:
        InputError: If the training split could not be read.
    """
    spec = recipe.model.new
    if spec is None:
        return _with_vocabulary(recipe, data_by_task)
    (data,) = data_by_task.values()
    if data is UNKNOWN_DATA:
        raise InputError(
            Problem("model.new", "must be used with data that can be read: the model is made from it")
        )
    modality = TASKS[recipe.task_type].modality
    fields = recipe.data.model_dump(mode="json", include=set(modality.data_fields.model_fields))
    rows = None if data.pool is None else data.pool.rows["train"]
    content = [_FORMAT, data.source_fingerprint("train"), rows, spec.model_dump(), fields, recipe.seed]
    note = (
        f"Nothing is pretrained: the model has random weights ({spec.layers} layers, hidden size {spec.hidden}), and "
        f"{modality.made_of_data}."
    )

    def write(folder: Path) -> str:
        modality.save_new_model(folder, data.train, recipe.data, spec, recipe.seed)
        return note

    return _with_made_checkpoint(recipe, content, f"new model for {recipe.task_type}", len(data.train), write)


def _with_vocabulary(
    recipe: Recipe, data_by_task: Mapping[str, LabeledData]
) -> tuple[Recipe, tuple[str, ...]]:
    """Return the recipe with a checkpoint whose vocabulary is made from the labels, if it needs one; and a note."""
    data, modality = next(iter(data_by_task.values())), TASKS[recipe.task_type].modality
    path, revision = recipe.model.path, recipe.model.revision
    if data is UNKNOWN_DATA or missing_checkpoint(path) or not modality.needs_vocabulary(path, revision):
        return recipe, ()
    labels = sorted(set(data.train["label"][:]))
    content = [_FORMAT, path, revision, _files_in(Path(path)), labels]

    def write(folder: Path) -> str:
        return modality.save_with_vocabulary(folder, path, revision, data.train)

    return _with_made_checkpoint(recipe, content, f"vocabulary for {path}", len(data.train), write)


def _files_in(folder: Path) -> list[tuple[str, int, int]]:
    """Return name, size and time of change of each file in a folder; empty if there is no such folder."""
    if not folder.is_dir():
        return []
    return [
        (str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns)
        for path in sorted(folder.iterdir())
    ]


def needs_data(recipe: Recipe) -> bool:
    """Return whether the checkpoint of a recipe is made from its data, so that it cannot be read without them.

    Args:
        recipe: Recipe of a run.
    """
    spec, modality = recipe.model, TASKS[recipe.task_type].modality
    return spec.new is not None or (
        not missing_checkpoint(spec.path) and modality.needs_vocabulary(spec.path, spec.revision)
    )


def _with_made_checkpoint(
    recipe: Recipe, content: Sequence[Any], title: str, examples: int, write: Callable[[Path], str]
) -> tuple[Recipe, tuple[str, ...]]:
    """Return the recipe with a checkpoint in the cache, which is written if it is not there; and the note on it.

    Args:
        recipe: Recipe.
        content: JSON values on which the checkpoint depends.
        title: Description for the list of the cache.
        examples: Number of training examples.
        write: Function that writes the checkpoint to a folder, and returns a note for the user.
    """
    key = hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]
    folder = cache_folder() / f"new-model-{key}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(f"{folder.name}.lock")):
        if not (folder / "meta.json").is_file():
            with atomic_folder(folder) as partial:
                about = {"about": title, "examples": examples, "note": write(partial)}
                (partial / "meta.json").write_text(json.dumps(about), encoding="utf-8")
        note = json.loads((folder / "meta.json").read_text(encoding="utf-8"))["note"]
    model = recipe.model.model_copy(update={"path": str(folder)})
    return recipe.model_copy(update={"model": model}), (note,)
