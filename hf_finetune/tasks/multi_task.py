"""Several tasks of one kind at once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from transformers import PreTrainedConfig

from hf_finetune.data.joint_tasks import MixedExamples, TaskColumns
from hf_finetune.data.prepare import LabelledData
from hf_finetune.recipe.schema import DataSpec
from hf_finetune.tasks.base import Inputs, Task

__all__ = ["MultiTask", "Share"]


@dataclass(frozen=True)
class Share:
    """What one of the tasks trains on.

    Attributes:
        data: Its splits.
        spec: The fields of its data, with those that all tasks share.
    """

    data: LabelledData
    spec: DataSpec


class MultiTask:
    """Several tasks on the examples of each, mixed.

    Args:
        kind: What each of them is.
        shares: Of each task what it trains on, by its name.
        columns: Of each task its columns in labels and logits.
    """

    name = "multi-task"

    def __init__(self, kind: Task, shares: Mapping[str, Share], columns: Sequence[TaskColumns]):
        self.kind, self.shares, self.columns = kind, dict(shares), tuple(columns)

    @property
    def modality(self) -> Literal["image", "text"]:
        """What an example is."""
        return self.kind.modality

    def configure(self, processor: Any, config: PreTrainedConfig, data: DataSpec) -> tuple[str, ...]:
        """Set in processor and config what the fields change that all tasks share; return what is to be known of it."""
        return self.kind.configure(processor, config, data)

    def prepare(self, data: LabelledData, processor: Any, spec: DataSpec, seed: int) -> Inputs:
        """Prepare the examples of each task as if it were alone, and put them side by side."""
        made = [self.kind.prepare(share.data, processor, share.spec, seed) for share in self.shares.values()]
        held = [
            (inputs.validation, columns)
            for inputs, columns in zip(made, self.columns, strict=True)
            if inputs.validation is not None
        ]
        lengths: list[int] | None = [length for inputs in made for length in inputs.lengths or ()]
        width = self.columns[-1].labels[1]
        train = MixedExamples([inputs.train for inputs in made], self.columns, width)
        if lengths is not None and len(lengths) < len(train):
            lengths = None
        examples, own = [one for one, _ in held], [one for _, one in held]
        validation = MixedExamples(examples, own, width) if held else None
        truncations = {
            name: truncation
            for name, inputs in zip(self.shares, made, strict=True)
            for truncation in inputs.truncations.values()
        }
        return Inputs(train, validation, made[0].collate, lengths, truncations)

    def dummy(self, processor: Any) -> dict[str, torch.Tensor]:
        """Make the inputs of one example."""
        return self.kind.dummy(processor)
