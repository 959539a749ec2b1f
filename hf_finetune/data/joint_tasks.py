"""Examples of several tasks side by side: a label has a place for every task, and numbers only in its own."""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import nan
from typing import Any

import torch
from torch.utils.data import Dataset

from hf_finetune.data.labels import Target
from hf_finetune.data.seeded_augmentation import cycle, set_epoch

__all__ = ["MixedExamples", "TaskColumns", "task_columns"]


@dataclass(frozen=True)
class TaskColumns:
    """Where a task stands in the labels and in the logits of all tasks.

    Attributes:
        name: The task.
        target: What its labels are.
        labels: First and last but one column of a label: a class index, an amount, or zeros and ones for each class.
        logits: First and last but one column of the logits.
    """

    name: str
    target: Target
    labels: tuple[int, int]
    logits: tuple[int, int]

    def logits_of(self, logits: Any) -> Any:
        """Give the logits of this task.

        Args:
            logits: [examples, of all tasks].
        """
        return logits[:, self.logits[0] : self.logits[1]]

    def labels_of(self, labels: Any) -> Any:
        """Give the labels of this task, nan where an example is of another.

        Args:
            labels: [examples, of all tasks].
        """
        return labels[:, self.labels[0] : self.labels[1]]

    @property
    def width(self) -> int:
        """Number of columns of a label."""
        return self.labels[1] - self.labels[0]


def task_columns(tasks: Mapping[str, tuple[Target, int]]) -> tuple[TaskColumns, ...]:
    """Give each task its columns, in their order.

    Args:
        tasks: Of each task what its labels are, and its number of classes (1 for amounts).
    """
    columns, label, logit = [], 0, 0
    for name, (target, classes) in tasks.items():
        width = classes if target == "multi_label" else 1
        columns.append(TaskColumns(name, target, (label, label + width), (logit, logit + classes)))
        label, logit = label + width, logit + classes
    return tuple(columns)


class MixedExamples(Dataset):
    """The examples of all tasks, those of the first one first.

    Args:
        parts: Of each task its examples, with ``labels``.
        columns: Of each of these tasks its columns.
        width: Number of columns of a label, those of tasks that have no examples here included.
    """

    def __init__(self, parts: Sequence[Any], columns: Sequence[TaskColumns], width: int):
        self.parts, self.columns, self.width = list(parts), list(columns), width
        self.ends = list(accumulate(len(part) for part in self.parts))

    def set_epoch(self, epoch: int) -> None:
        """Draw other versions from here on."""
        for part in self.parts:
            set_epoch(part, epoch)

    def cycling(self, views: int) -> "MixedExamples":
        """Give the same examples in the first versions only, again and again."""
        return self.over([cycle(part, views) for part in self.parts])

    def over(self, parts: Sequence[Any]) -> "MixedExamples":
        """Give others in the place of each task's examples."""
        return MixedExamples(parts, self.columns, self.width)

    def __len__(self) -> int:
        return self.ends[-1]

    def __getitem__(self, index: int) -> dict[str, Any]:
        number = bisect_right(self.ends, index)
        part, task = self.parts[number], self.columns[number]
        example = dict(part[index - (self.ends[number] - len(part))])
        row = [nan] * self.width
        row[task.labels[0] : task.labels[1]] = _numbers(example["labels"])
        return {**example, "labels": row}


def _numbers(label: Any) -> list[float]:
    return torch.as_tensor(label, dtype=torch.float32).reshape(-1).tolist()
