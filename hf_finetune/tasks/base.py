"""What a task has to say for itself."""

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
    """Examples as the model takes them.

    Attributes:
        train: The training split, augmented.
        validation: The validation split, as inference prepares it; None if there is none.
        collate: Makes a batch of examples. What need not be done for each of them by itself is done here.
        lengths: Number of tokens of each training example, by which batches are made; None makes them at random.
        truncations: Which texts are cut, of one task under the name "", of several under theirs.
    """

    train: Any
    validation: Any
    collate: Callable[[list[dict[str, Any]]], dict[str, torch.Tensor]]
    lengths: Sequence[int] | None = None
    truncations: Mapping[str, Truncation] = field(default_factory=dict)

    @property
    def notes(self) -> dict[str, str]:
        """What the person should know of how examples become inputs, by task."""
        notes = {task: truncation.note() for task, truncation in self.truncations.items()}
        return {task: note for task, note in notes.items() if note is not None}


class Task(Protocol):
    """A kind of input and what is predicted of it. One file and a recipe make a new one.

    Attributes:
        name: As in a recipe, and as ``transformers.pipeline`` calls it.
        modality: What an example is.
    """

    @property
    def name(self) -> str:
        """The task's name."""

    @property
    def modality(self) -> Literal["image", "text"]:
        """What an example is."""

    def configure(self, processor: Any, config: PreTrainedConfig, data: DataSpec) -> tuple[str, ...]:
        """Set in the processor and the config, in place, what the recipe's data fields change of them.

        Returns:
            What the person should know of that, a sentence each.
        """

    def prepare(self, data: LabelledData, processor: Any, spec: DataSpec, seed: int) -> Inputs:
        """Make model inputs of the training and validation splits."""

    def dummy(self, processor: Any) -> dict[str, torch.Tensor]:
        """Make the inputs of one example, to try a model with."""
