"""Multi-task examples: joint labels have columns for every task, and are nan except in those of the example's task."""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import nan
from typing import Any

import torch
from torch.utils.data import Dataset

from hf_finetune.targets import TARGETS
from hf_finetune.targets.labels import TargetName
from hf_finetune.tasks.seeded_augmentation import cycle, set_epoch

__all__ = ["MultiTaskDataset", "TaskColumns", "task_columns"]


@dataclass(frozen=True)
class TaskColumns:
    """Columns of a task in the joint labels and the joint logits of all tasks.

    Attributes:
        name: Name of the task.
        target: Label type of the task.
        labels: Half-open range of label columns: one for a class index or a continuous target, or one per class for
            multi-hot labels.
        logits: Half-open range of logit columns.
    """

    name: str
    target: TargetName
    labels: tuple[int, int]
    logits: tuple[int, int]

    def select_logits(self, logits: Any) -> Any:
        """Return the logits of this task [examples, task logits].

        Args:
            logits: Joint logits [examples, logits of all tasks].
        """
        return logits[:, self.logits[0] : self.logits[1]]

    def select_labels(self, labels: Any) -> Any:
        """Return the labels of this task [examples, task labels]; nan for examples of other tasks.

        Args:
            labels: Joint labels [examples, labels of all tasks].
        """
        return labels[:, self.labels[0] : self.labels[1]]

    @property
    def width(self) -> int:
        """Return the number of label columns."""
        return self.labels[1] - self.labels[0]


def task_columns(tasks: Mapping[str, tuple[TargetName, int]]) -> tuple[TaskColumns, ...]:
    """Assign consecutive label and logit columns to the tasks, in their order.

    Args:
        tasks: Label type and number of classes (1 for regression) of each task, by name.

    Returns:
        Columns of each task, in the order of ``tasks``.

    Raises:
        ValueError: If the labels of a task are no rows of numbers.
    """
    columns, label, logit = [], 0, 0
    for name, (target, classes) in tasks.items():
        width = TARGETS[target].label_width(classes)
        if width is None:
            raise ValueError(f"{target} labels have no columns in joint labels")
        columns.append(TaskColumns(name, target, (label, label + width), (logit, logit + classes)))
        label, logit = label + width, logit + classes
    return tuple(columns)


class MultiTaskDataset(Dataset):
    """Concatenation of the examples of all tasks, with joint labels.

    Args:
        datasets: Dataset of each task, whose examples have ``labels``.
        columns: Joint columns of each of these tasks.
        width: Number of columns of the joint labels, including those of tasks without examples here.
    """

    def __init__(self, datasets: Sequence[Any], columns: Sequence[TaskColumns], width: int):
        self.datasets, self.columns, self.width = list(datasets), list(columns), width
        self.ends = list(accumulate(len(dataset) for dataset in self.datasets))

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of all tasks, which changes their augmentation."""
        for dataset in self.datasets:
            set_epoch(dataset, epoch)

    def cycling(self, views: int) -> "MultiTaskDataset":
        """Return the same examples with augmentation that cycles through ``views`` views."""
        return self.over([cycle(dataset, views) for dataset in self.datasets])

    def over(self, datasets: Sequence[Any]) -> "MultiTaskDataset":
        """Return a copy with other examples for each task."""
        return MultiTaskDataset(datasets, self.columns, self.width)

    def __len__(self) -> int:
        return self.ends[-1]

    def __getitem__(self, index: int) -> dict[str, Any]:
        number = bisect_right(self.ends, index)
        dataset, task = self.datasets[number], self.columns[number]
        example = dict(dataset[index - (self.ends[number] - len(dataset))])
        row = [nan] * self.width
        row[task.labels[0] : task.labels[1]] = _as_vector(example["labels"])
        return {**example, "labels": row}


def _as_vector(label: Any) -> list[float]:
    return torch.as_tensor(label, dtype=torch.float32).reshape(-1).tolist()
