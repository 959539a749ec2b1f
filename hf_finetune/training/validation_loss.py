"""Logits of a validation split, and the exact loss over it as a metric."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from transformers import EvalPrediction

from hf_finetune.training.callbacks import DivergedError

__all__ = ["add_loss_metric", "reduce_before_metrics", "reduce_logits", "require_finite_logits"]


def require_finite_logits(prediction: Any) -> np.ndarray:
    """Return the logits [examples, classes] of a validation split.

    Args:
        prediction: ``EvalPrediction`` of the split.

    Raises:
        DivergedError: If a logit is nan or infinite.
    """
    logits = _logits(prediction)
    if not np.isfinite(logits).all():
        raise DivergedError(
            "The model's output on the validation split is not finite. In a new run lower lr, or use fp32 if the "
            "precision is lower."
        )
    return logits


def _logits(prediction: Any) -> np.ndarray:
    """Return the logits of an ``EvalPrediction``, without the additional outputs of some models."""
    predictions = prediction.predictions
    return np.asarray(predictions[0] if isinstance(predictions, tuple) else predictions)


def add_loss_metric(
    compute_metrics: Callable[[Any], dict[str, float]],
    loss: Callable[..., torch.Tensor],
    *,
    reduced: bool = False,
) -> Callable[[Any], dict[str, float]]:
    """Return ``compute_metrics`` with the exact loss over the whole split added as ``loss``.

    transformers 5.23 averages the means of the batches, in which several processes count some examples twice.

    Args:
        compute_metrics: Metrics of an ``EvalPrediction``.
        loss: Loss function of outputs and labels.
        reduced: Whether the predictions come from ``reduce_logits``.
    """

    def compute(prediction: Any) -> dict[str, float]:
        logits = _logits(prediction)
        if reduced:
            without_loss = EvalPrediction(predictions=logits[:, :-1], label_ids=prediction.label_ids)
            return {**compute_metrics(without_loss), "loss": float(logits[:, -1].mean(dtype=np.float64))}
        labels = torch.as_tensor(prediction.label_ids)
        return {**compute_metrics(prediction), "loss": loss((torch.as_tensor(logits),), labels).item()}

    return compute


def reduce_logits(
    reduce: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] | None, loss: Callable[..., torch.Tensor]
) -> Callable[[Any, torch.Tensor], torch.Tensor] | None:
    """Return the Trainer's ``preprocess_logits_for_metrics``, or None if the logits are not reduced.

    Args:
        reduce: Reduction of logits and labels, see ``StageEvaluation``; None keeps the logits.
        loss: Loss function of outputs and labels.

    Returns:
        Function of logits [batch, classes] and labels to the reduced columns and, last, the loss of each example
        [batch, columns + 1].
    """
    if reduce is None:
        return None

    def preprocess(logits: Any, labels: torch.Tensor) -> torch.Tensor:
        logits = logits[0] if isinstance(logits, tuple) else logits
        losses = [loss((row[None],), label[None]) for row, label in zip(logits, labels, strict=True)]
        return torch.cat([reduce(logits, labels), torch.stack(losses)[:, None].float()], dim=1)

    return preprocess


def reduce_before_metrics(
    compute_metrics: Callable[[Any], dict[str, float]],
    preprocess: Callable[[Any, torch.Tensor], torch.Tensor] | None,
) -> Callable[[Any], dict[str, float]]:
    """Return ``compute_metrics`` for full logits: they are first reduced by ``preprocess``, unless it is None.

    Args:
        compute_metrics: Metrics of an ``EvalPrediction`` with reduced predictions.
        preprocess: Function that reduces logits [examples, classes] and labels, from ``reduce_logits``.
    """
    if preprocess is None:
        return compute_metrics

    def compute(prediction: Any) -> dict[str, float]:
        logits, labels = (torch.as_tensor(array) for array in (prediction.predictions, prediction.label_ids))
        reduced = preprocess(logits, labels).numpy()
        return compute_metrics(EvalPrediction(predictions=reduced, label_ids=prediction.label_ids))

    return compute
