"""Model inputs of a task, for ordinary splits and for the folds of a cross-validation."""

from dataclasses import replace
from typing import Any

from torch.utils.data import Subset

from hf_finetune.data.multi_task import MultiTask
from hf_finetune.data.prepare import LabeledData
from hf_finetune.recipe.modality_fields import DataFields
from hf_finetune.tasks.base import Task
from hf_finetune.tasks.examples import Inputs

__all__ = ["prepare_inputs"]


def prepare_inputs(
    task: Task | MultiTask, data: LabeledData, processor: Any, spec: DataFields, seed: int
) -> Inputs:
    """Return the model inputs of the training and validation splits.

    The inputs of a fold are ``Subset``s of the inputs of all examples, so that an example has the same inputs in every
    fold, including its random augmentation, and all folds share one cache entry.

    Args:
        task: Task of the run, or all tasks of a multi-task run.
        data: Splits of the data.
        processor: Preprocessor of the checkpoint.
        spec: Data fields of the recipe.
        seed: Seed of the augmentation.
    """
    if data.pool is None:
        return task.prepare(data, processor, spec, seed)
    whole = data.pool.dataset
    inputs = task.prepare(replace(data, train=whole, validation=whole, pool=None), processor, spec, seed)
    rows = data.pool.rows
    chosen = inputs.made_of(rows["train"])
    return replace(
        inputs,
        train=Subset(inputs.train, chosen),
        validation=Subset(inputs.validation, rows["validation"]) if data.validation is not None else None,
        lengths=None if inputs.lengths is None else [inputs.lengths[number] for number in chosen],
        rows=None,
        truncations={task: truncation.of_rows(rows) for task, truncation in inputs.truncations.items()},
    )
