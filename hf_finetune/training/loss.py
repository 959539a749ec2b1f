"""What a stage trains for: the loss of its labels, and what is added to it."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from transformers import EvalPrediction

from hf_finetune.methods.distillation import Teacher, loss_with_teacher
from hf_finetune.methods.domain_alignment import DomainAlignment, aligned_loss
from hf_finetune.methods.r_drop import r_drop_loss
from hf_finetune.methods.regularizers import Regularizers
from hf_finetune.training.callbacks import DivergedError

__all__ = ["finite_logits", "of_logits", "reduce_logits", "training_loss", "with_loss"]

Loss = Callable[..., torch.Tensor]


def training_loss(
    loss: Callable[..., torch.Tensor],
    target: str,
    teacher: Teacher | None,
    regular: Regularizers,
    alignment: DomainAlignment | None,
) -> Callable[..., torch.Tensor]:
    """Add to the loss of the labels what a teacher says, and how far two domains, or two passes, are apart."""
    if teacher is not None:
        loss = loss_with_teacher(loss, teacher, target)
    if alignment is not None:
        return aligned_loss(loss, alignment)
    return r_drop_loss(loss, regular.r_drop, target) if regular.r_drop else loss


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
    compute_metrics: Callable[[Any], dict[str, float]],
    loss: Callable[..., torch.Tensor],
    *,
    reduced: bool = False,
) -> Callable[[Any], dict[str, float]]:
    """Add the loss over the whole split.

    transformers 5.23 takes the mean of the batches' means, in which several processes count some examples twice.

    Args:
        compute_metrics: From an ``EvalPrediction``.
        loss: Gives the loss from outputs and labels.
        reduced: Whether the predictions are what ``reduce_logits`` made of the logits.
    """

    def compute(prediction: Any) -> dict[str, float]:
        logits = _logits(prediction)
        if reduced:
            rest = EvalPrediction(predictions=logits[:, :-1], label_ids=prediction.label_ids)
            return {**compute_metrics(rest), "loss": float(logits[:, -1].mean(dtype=np.float64))}
        labels = torch.as_tensor(prediction.label_ids)
        return {**compute_metrics(prediction), "loss": loss((torch.as_tensor(logits),), labels).item()}

    return compute


def reduce_logits(
    reduce: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] | None, loss: Callable[..., torch.Tensor]
) -> Callable[[Any, torch.Tensor], torch.Tensor] | None:
    """Return the Trainer's ``preprocess_logits_for_metrics``: the reduced logits and the loss of each example.

    Args:
        reduce: From ``StageEvaluation``; None leaves the logits as they are.
        loss: Gives the loss from outputs and labels.
    """
    if reduce is None:
        return None

    def preprocess(logits: Any, labels: torch.Tensor) -> torch.Tensor:
        logits = logits[0] if isinstance(logits, tuple) else logits
        losses = [loss((row[None],), label[None]) for row, label in zip(logits, labels, strict=True)]
        return torch.cat([reduce(logits, labels), torch.stack(losses)[:, None].float()], dim=1)

    return preprocess


def of_logits(
    compute_metrics: Callable[[Any], dict[str, float]],
    preprocess: Callable[[Any, torch.Tensor], torch.Tensor] | None,
) -> Callable[[Any], dict[str, float]]:
    """Return metrics of whole logits where ``compute_metrics`` takes reduced ones."""
    if preprocess is None:
        return compute_metrics

    def compute(prediction: Any) -> dict[str, float]:
        logits, labels = (torch.as_tensor(each) for each in (prediction.predictions, prediction.label_ids))
        reduced = preprocess(logits, labels).numpy()
        return compute_metrics(EvalPrediction(predictions=reduced, label_ids=prediction.label_ids))

    return compute
