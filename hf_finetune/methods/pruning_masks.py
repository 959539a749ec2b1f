"""Pruning masks: keep pruned weights at 0 during training, as optimizer steps would change them."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from transformers import TrainerControl, TrainerState, TrainingArguments

from hf_finetune.methods.base import CallbackMethod, StageContext
from hf_finetune.models.compression import is_sparse
from hf_finetune.models.pruning import pruning_masks
from hf_finetune.planning.stages import StagePlan
from hf_finetune.recipe.method_rules import PRUNING
from hf_finetune.recipe.schema import Recipe
from hf_finetune.recipe.stage_fields import StageSpec

__all__ = ["PruningMasks", "apply_pruning_masks"]

Masked = list[tuple[nn.Parameter, torch.Tensor]]
"""Weights, each with a mask that is true where the weight is pruned."""


def apply_pruning_masks(masked: Iterable[tuple[nn.Parameter, torch.Tensor]]) -> None:
    """Set weights to 0 where their masks are true, in place.

    Args:
        masked: Weights, each with a mask of the same shape on the same device.
    """
    for weight, mask in masked:
        weight.data.masked_fill_(mask, 0.0)


class PruningMasks(CallbackMethod):
    """Reset pruned weights to 0 after each optimizer step.

    Args:
        masked: Weights, each with a mask that is true where the weight must stay 0. Frozen weights are skipped.
    """

    rules = PRUNING

    def __init__(self, masked: Iterable[tuple[nn.Parameter, torch.Tensor]]):
        self.masked = list(masked)
        self.trained: Masked = []

    @classmethod
    def is_used(cls, recipe: Recipe, spec: StageSpec, plan: StagePlan) -> bool:
        """Return whether this stage or an earlier one has unstructured pruning."""
        return is_sparse(recipe.stages[: recipe.stages.index(spec) + 1])

    @classmethod
    def build(cls, context: StageContext) -> "PruningMasks | None":
        """Return the method if this stage or an earlier one has unstructured pruning, or None."""
        stages = (*context.earlier, context.stage.spec)
        return cls(pruning_masks(context.model)) if is_sparse(stages) else None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Select the trained weights, and move their masks to their device."""
        self.trained = [
            (weight, mask.to(weight.device)) for weight, mask in self.masked if weight.requires_grad
        ]

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Reset the pruned weights that the step has changed."""
        apply_pruning_masks(self.trained)
