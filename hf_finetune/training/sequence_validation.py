"""Validation of models that write sequences of tokens: exact loss, and the sequences themselves."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from transformers import EvalPrediction

from hf_finetune.targets.losses import loss_for, valid_labels
from hf_finetune.tasks.examples import SequenceOutputs
from hf_finetune.training.callbacks import DivergedError

__all__ = ["label_loss", "losses_and_tokens", "with_sequence_loss"]

_LOSS, _COUNT, _TOKENS = 0, 1, 2
"""Columns of a prediction: sum of the losses of its tokens, their number, and where the written tokens begin."""


def label_loss(
    target: str, sequences: SequenceOutputs | None, smoothing: float = 0.0
) -> Callable[..., torch.Tensor]:
    """Return the loss of the labels: that of a model whose output is a sequence, if it has its own, or of the target.

    Args:
        target: Label type.
        sequences: How a model is trained whose output is a sequence; None for logits of labels.
        smoothing: Share of each label that is distributed over all classes.

    Returns:
        Function of outputs, labels and ``num_items_in_batch``.
    """
    own = None if sequences is None else sequences.loss(smoothing)
    return own or loss_for(target, smoothing)


def losses_and_tokens(
    loss: Callable[..., torch.Tensor], logits: torch.Tensor, labels: torch.Tensor, tokens: torch.Tensor
) -> torch.Tensor:
    """Return the predictions of a batch, as ``with_sequence_loss`` reads them.

    Args:
        loss: Loss function of outputs, labels and ``num_items_in_batch``.
        logits: Logits [batch, steps, vocabulary].
        labels: Token ids [batch, tokens], padded by -100.
        tokens: Tokens that the model has written [batch, tokens].

    Returns:
        Sum of the losses, number of labels, and the written tokens [batch, 2 + tokens], float32.
    """
    one = torch.ones((), device=logits.device)
    sums = [loss((row[None],), label[None], one) for row, label in zip(logits, labels, strict=True)]
    counts = valid_labels(labels).sum(dim=1)
    return torch.cat([torch.stack(sums)[:, None].float(), counts[:, None].float(), tokens.float()], dim=1)


def with_sequence_loss(
    compute_metrics: Callable[[Any], dict[str, float]],
) -> Callable[[Any], dict[str, float]]:
    """Return ``compute_metrics`` with the mean loss per token of the whole split added as ``loss``.

    Args:
        compute_metrics: Metrics of an ``EvalPrediction`` of written tokens and labels, both padded by -100.
    """

    def compute(prediction: EvalPrediction) -> dict[str, float]:
        columns = np.asarray(prediction.predictions)
        total = float(columns[:, _LOSS].sum(dtype=np.float64) / columns[:, _COUNT].sum(dtype=np.float64))
        if not np.isfinite(total):
            raise DivergedError(
                "The loss on the validation split is not finite. In a new run lower lr, or use fp32 if the precision "
                "is lower."
            )
        tokens = columns[:, _TOKENS:].astype(np.int64)
        written = EvalPrediction(predictions=tokens, label_ids=prediction.label_ids)
        return {**compute_metrics(written), "loss": total}

    return compute
