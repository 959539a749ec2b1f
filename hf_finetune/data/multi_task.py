"""Multi-task training on several datasets of the same kind of task."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hf_finetune.data.joint_tasks import MultiTaskDataset, TaskColumns
from hf_finetune.data.prepare import LabeledData
from hf_finetune.recipe.modality_fields import DataFields
from hf_finetune.tasks.base import Task
from hf_finetune.tasks.examples import Inputs
from hf_finetune.tasks.modality import Modality

__all__ = ["MultiTask", "TaskData"]


@dataclass(frozen=True)
class TaskData:
    """Data of one of the tasks.

    Attributes:
        data: Splits of the task.
        spec: Data fields of the task, including those that all tasks task.
    """

    data: LabeledData
    spec: DataFields


class MultiTask:
    """Several tasks of the same kind, trained together on the mixed examples of all of them.

    Args:
        kind: Task that each of them is an instance of, such as text classification.
        task_data: Data of each task, by name.
        columns: Columns of each task in the labels and logits of all tasks.
    """

    name = "multi-task"

    def __init__(self, kind: Task, task_data: Mapping[str, TaskData], columns: Sequence[TaskColumns]):
        self.kind, self.task_data, self.columns = kind, dict(task_data), tuple(columns)

    @property
    def modality(self) -> Modality:
        """Kind of input."""
        return self.kind.modality

    def prepare(self, data: LabeledData, processor: Any, spec: DataFields, seed: int) -> Inputs:
        """Prepare the examples of each task separately, and concatenate them; labels have the columns of all tasks.

        Args:
            data: Not used; the data of each task is in ``task_data``.
            processor: Preprocessor of the checkpoint.
            spec: Not used, likewise.
            seed: Seed of the augmentation.

        Returns:
            Inputs of all tasks, with joint labels.
        """
        parts = [self.kind.prepare(task.data, processor, task.spec, seed) for task in self.task_data.values()]
        validation_sets = [
            (inputs.validation, columns)
            for inputs, columns in zip(parts, self.columns, strict=True)
            if inputs.validation is not None
        ]
        lengths = [length for inputs in parts for length in inputs.lengths or ()]
        width = self.columns[-1].labels[1]
        train = MultiTaskDataset([inputs.train for inputs in parts], self.columns, width)
        examples, validation_columns = (
            [item for item, _ in validation_sets],
            [item for _, item in validation_sets],
        )
        validation = MultiTaskDataset(examples, validation_columns, width) if validation_sets else None
        truncations = {
            name: truncation
            for name, inputs in zip(self.task_data, parts, strict=True)
            for truncation in inputs.truncations.values()
        }
        known_lengths = lengths if len(lengths) == len(train) else None
        return Inputs(train, validation, parts[0].collate, known_lengths, truncations)
