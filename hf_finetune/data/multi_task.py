"""Multi-task training on several datasets of the same kind of task."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hf_finetune.data.joint_tasks import MixedExamples, TaskColumns
from hf_finetune.data.prepare import LabelledData
from hf_finetune.recipe.modality_fields import DataFields
from hf_finetune.tasks.base import Task
from hf_finetune.tasks.examples import Inputs
from hf_finetune.tasks.modality import Modality

__all__ = ["MultiTask", "Share"]


@dataclass(frozen=True)
class Share:
    """Data of one of the tasks.

    Attributes:
        data: Splits of the task.
        spec: Data fields of the task, including those that all tasks share.
    """

    data: LabelledData
    spec: DataFields


class MultiTask:
    """Several tasks of the same kind, trained together on the mixed examples of all of them.

    Args:
        kind: Task that each of them is an instance of, such as text classification.
        shares: Data of each task, by its name.
        columns: Columns of each task in the labels and logits of all tasks.
    """

    name = "multi-task"

    def __init__(self, kind: Task, shares: Mapping[str, Share], columns: Sequence[TaskColumns]):
        self.kind, self.shares, self.columns = kind, dict(shares), tuple(columns)

    @property
    def modality(self) -> Modality:
        """Kind of input."""
        return self.kind.modality

    def prepare(self, data: LabelledData, processor: Any, spec: DataFields, seed: int) -> Inputs:
        """Prepare the examples of each task separately, and concatenate them; labels have the columns of all tasks."""
        parts = [self.kind.prepare(share.data, processor, share.spec, seed) for share in self.shares.values()]
        held = [
            (inputs.validation, columns)
            for inputs, columns in zip(parts, self.columns, strict=True)
            if inputs.validation is not None
        ]
        lengths = [length for inputs in parts for length in inputs.lengths or ()]
        width = self.columns[-1].labels[1]
        train = MixedExamples([inputs.train for inputs in parts], self.columns, width)
        examples, held_columns = [item for item, _ in held], [item for _, item in held]
        validation = MixedExamples(examples, held_columns, width) if held else None
        truncations = {
            name: truncation
            for name, inputs in zip(self.shares, parts, strict=True)
            for truncation in inputs.truncations.values()
        }
        known_lengths = lengths if len(lengths) == len(train) else None
        return Inputs(train, validation, parts[0].collate, known_lengths, truncations)
