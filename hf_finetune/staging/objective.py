"""What a stage trains for: the loss of its labels, and what is added to it."""

from collections.abc import Callable
from typing import Any

import torch

from hf_finetune.staging.aligning import Alignment, aligned_loss
from hf_finetune.staging.distilling import Teacher, loss_with_teacher
from hf_finetune.staging.regularizing import Regular
from hf_finetune.staging.twice import loss_twice

__all__ = ["training_loss", "with_loss"]

Loss = Callable[..., torch.Tensor]


def training_loss(
    loss: Callable[..., torch.Tensor],
    target: str,
    teacher: Teacher | None,
    regular: Regular,
    alignment: Alignment | None,
) -> Callable[..., torch.Tensor]:
    """Add to the loss of the labels what a teacher says, and how far two domains, or two passes, are apart."""
    if teacher is not None:
        loss = loss_with_teacher(loss, teacher, target)
    if alignment is not None:
        return aligned_loss(loss, alignment)
    return loss_twice(loss, regular.r_drop, target) if regular.r_drop else loss


def with_loss(
    compute_metrics: Callable[[Any], dict[str, float]], loss: Callable[..., torch.Tensor]
) -> Callable[[Any], dict[str, float]]:
    """Add the loss over the whole split.

    transformers 5.23 takes the mean of the batches' means, in which several processes count some examples twice.
    """

    def compute(prediction: Any) -> dict[str, float]:
        logits = prediction.predictions
        logits = torch.as_tensor(logits[0] if isinstance(logits, tuple) else logits)
        return {
            **compute_metrics(prediction),
            "loss": loss((logits,), torch.as_tensor(prediction.label_ids)).item(),
        }

    return compute
