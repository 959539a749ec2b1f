"""What a stage trains for: the loss of its labels, and what is added to it."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from hf_finetune.staging.aligning import Alignment, aligned_loss
from hf_finetune.staging.callbacks import DivergedError
from hf_finetune.staging.distilling import Teacher, loss_with_teacher
from hf_finetune.staging.regularizing import Regular
from hf_finetune.staging.twice import loss_twice

__all__ = ["finite_logits", "training_loss", "with_loss"]

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


def finite_logits(prediction: Any) -> np.ndarray:
    """Give the logits [examples, classes] of a validation split.

    Args:
        prediction: An ``EvalPrediction``.
    Raises:
        DivergedError: If one of them is not a number.
    """
    logits = _logits(prediction)
    if not np.isfinite(logits).all():
        raise DivergedError(
            "The model's output on the validation split is not finite. In a new run lower lr, or use fp32."
        )
    return logits


def _logits(prediction: Any) -> np.ndarray:
    """Leave out what some models put beside their logits."""
    given = prediction.predictions
    return np.asarray(given[0] if isinstance(given, tuple) else given)


def with_loss(
    compute_metrics: Callable[[Any], dict[str, float]], loss: Callable[..., torch.Tensor]
) -> Callable[[Any], dict[str, float]]:
    """Add the loss over the whole split.

    transformers 5.23 takes the mean of the batches' means, in which several processes count some examples twice.
    """

    def compute(prediction: Any) -> dict[str, float]:
        logits = torch.as_tensor(_logits(prediction))
        return {
            **compute_metrics(prediction),
            "loss": loss((logits,), torch.as_tensor(prediction.label_ids)).item(),
        }

    return compute
