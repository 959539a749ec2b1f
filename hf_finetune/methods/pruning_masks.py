"""Keep weights at 0 that were pruned: gradients would move them again."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

__all__ = ["PruningMaskCallback", "apply_pruning_masks"]

Masked = list[tuple[nn.Parameter, torch.Tensor]]


def apply_pruning_masks(masked: Iterable[tuple[nn.Parameter, torch.Tensor]]) -> None:
    """Set weights to 0 where their masks are true.

    Args:
        masked: Weights, each with a mask of its shape on its device.
    """
    for weight, zero in masked:
        weight.data.masked_fill_(zero, 0.0)


class PruningMaskCallback(TrainerCallback):
    """Set pruned weights back to 0 behind each step of the optimizer.

    Args:
        masked: Weights, each with a mask that is true where it is to stay 0. What else is frozen needs none.
    """

    def __init__(self, masked: Iterable[tuple[nn.Parameter, torch.Tensor]]):
        self.masked = list(masked)
        self.trained: Masked = []

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Take the masks of what is trained to its device."""
        self.trained = [
            (weight, zero.to(weight.device)) for weight, zero in self.masked if weight.requires_grad
        ]

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Undo what the step did to them."""
        apply_pruning_masks(self.trained)
