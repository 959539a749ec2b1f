"""A model without pretrained weights, written to the cache as a checkpoint from which a run starts."""

import hashlib
import json
from collections.abc import Mapping

from filelock import FileLock

from hf_finetune.cache.cache_dir import cache_folder
from hf_finetune.data.prepare import LabeledData
from hf_finetune.errors import InputError, Problem
from hf_finetune.files import atomic_folder
from hf_finetune.recipe.schema import Recipe
from hf_finetune.runs.prepared import UNKNOWN_DATA
from hf_finetune.tasks import TASKS

__all__ = ["with_new_model"]

_FORMAT = 1
"""Version of the checkpoints; those of another version are not used."""


def with_new_model(recipe: Recipe, data_by_task: Mapping[str, LabeledData]) -> tuple[Recipe, tuple[str, ...]]:
    """Return a recipe whose ``model.path`` is the folder of its new model, and a note; unchanged without ``model.new``.

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
        return recipe, ()
    (data,) = data_by_task.values()
    if data is UNKNOWN_DATA:
        raise InputError(
            Problem("model.new", "must be used with data that can be read: its tokenizer is made from it")
        )
    modality = TASKS[recipe.task_type].modality
    fields = recipe.data.model_dump(mode="json", include=set(modality.data_fields.model_fields))
    rows = None if data.pool is None else data.pool.rows["train"]
    content = [_FORMAT, data.source_fingerprint("train"), rows, spec.model_dump(), fields, recipe.seed]
    key = hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]
    folder = cache_folder() / f"new-model-{key}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(f"{folder.name}.lock")):
        if not (folder / "meta.json").is_file():
            with atomic_folder(folder) as partial:
                modality.save_new_model(partial, data.train, recipe.data, spec, recipe.seed)
                about = {"about": f"new model for {recipe.task_type}", "examples": len(data.train)}
                (partial / "meta.json").write_text(json.dumps(about), encoding="utf-8")
    model = recipe.model.model_copy(update={"path": str(folder)})
    note = (
        f"Nothing is pretrained: the model has random weights ({spec.layers} layers, hidden size {spec.hidden}), and "
        "its tokenizer is made from the training split."
    )
    return recipe.model_copy(update={"model": model}), (note,)
