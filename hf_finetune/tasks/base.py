"""Interface of a task, and the model inputs that it prepares."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import torch
from transformers import PreTrainedConfig

from hf_finetune.data.prepare import LabelledData
from hf_finetune.data.truncation import Truncation
from hf_finetune.recipe.schema import DataSpec

__all__ = ["Inputs", "Task"]


@dataclass(frozen=True)
class Inputs:
    """Examples as model inputs.

    Attributes:
        train: Training split, augmented.
        validation: Validation split, prepared as for inference; None if there is none.
        collate: Collate function, which also does all work that need not be done per example.
        lengths: Number of tokens of each training example, for batches of similar lengths; None for random batches.
        truncations: Truncation statistics of texts by task; a single task has the name "".
    """

    train: Any
    validation: Any
    collate: Callable[[list[dict[str, Any]]], dict[str, torch.Tensor]]
    lengths: Sequence[int] | None = None
    truncations: Mapping[str, Truncation] = field(default_factory=dict)

    @property
    def notes(self) -> dict[str, str]:
        """Messages to the user on truncated inputs, by task; only tasks that have one."""
        notes = {task: truncation.note() for task, truncation in self.truncations.items()}
        return {task: note for task, note in notes.items() if note is not None}


class Task(Protocol):
    """A kind of input and of prediction. To add a task, add a module that implements this protocol, and a recipe.

    Attributes:
        name: Name of the task in recipes and in ``transformers.pipeline``.
        modality: Kind of input: image or text.
    """

    @property
    def name(self) -> str:
        """Task name in recipes and in ``transformers.pipeline``."""

    @property
    def modality(self) -> Literal["image", "text"]:
        """Kind of input: image or text."""

    def configure(self, processor: Any, config: PreTrainedConfig, data: DataSpec) -> tuple[str, ...]:
        """Apply the recipe's data fields to the processor and the model config, in place.

        Returns:
            Messages to the user, one sentence each.
        """

    def prepare(self, data: LabelledData, processor: Any, spec: DataSpec, seed: int) -> Inputs:
        """Return the model inputs of the training and validation splits."""

    def dummy(self, processor: Any) -> dict[str, torch.Tensor]:
        """Return a batch of one dummy example, to test a forward pass."""
