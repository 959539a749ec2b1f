"""The loss of each kind of label: a sum over the labels that count, divided by their number in the whole batch."""

from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional

__all__ = ["IGNORED", "label_weights", "loss_for", "valid_labels", "weighted_cross_entropy"]

IGNORED = -100
"""The class that torch's cross-entropy passes over."""


def valid_labels(labels: torch.Tensor) -> torch.Tensor:
    """Tell which labels count: all but those of fillers. Amounts may well be -100."""
    return ~labels.isnan() if labels.is_floating_point() else labels != IGNORED


def label_weights(labels: torch.Tensor, target: str) -> torch.Tensor:
    """Return how much each label counts in the loss: 1, its example's weight, or 0 for that of a filler.

    Args:
        labels: As a loss takes them. Those of single-label data may be the probability of each class times the weight
            of the example [batch, classes].
        target: What a label is.

    Returns:
        [batch], or [batch, classes] where each class of an example is a label of its own.
    """
    known = valid_labels(labels)
    if target == "single_label" and labels.ndim > 1:
        return labels.where(known, 0.0).sum(dim=-1)
    return known


def loss_for(target: str, label_smoothing: float = 0.0) -> Callable[..., torch.Tensor]:
    """Give the loss: a sum over the micro-batch, divided by the labels of the whole batch.

    So the gradient is that of the mean over the batch, however many micro-batches and processes share it. The labels
    of fillers do not count.

    Args:
        target: ``single_label`` (cross-entropy), ``multi_label`` (binary cross-entropy) or ``regression``
            (mean squared error).
        label_smoothing: Share of each label's weight that is spread over all classes, in [0, 1).

    Labels of single-label data may be probabilities [batch, classes], as mixup makes them, times the weight of the
    example; the sum is then divided by the sum of the weights. The model never sees labels: it would take such for
    several labels per example, and write that into its config.
    """

    def loss(
        outputs: Any, labels: torch.Tensor, num_items_in_batch: torch.Tensor | int | None = None
    ) -> torch.Tensor:
        logits = outputs["logits"] if isinstance(outputs, dict) else outputs[0]
        logits, known = logits.float(), valid_labels(labels)
        items = label_weights(labels, target).sum() if num_items_in_batch is None else num_items_in_batch
        if target == "single_label" and labels.ndim > 1:
            total = weighted_cross_entropy(logits, labels.where(known, 0).to(logits), label_smoothing).sum()
        elif target == "single_label":
            total = functional.cross_entropy(logits, labels, reduction="sum", label_smoothing=label_smoothing)
        else:
            labels = labels.where(known, 0).to(logits)
            if target == "multi_label":
                each = functional.binary_cross_entropy_with_logits(logits, labels, reduction="none")
            else:
                each = functional.mse_loss(logits.view(-1), labels.view(-1), reduction="none")
            total = (each * known.view_as(each)).sum()
        return total / items

    return loss


def weighted_cross_entropy(logits: torch.Tensor, shares: torch.Tensor, smoothing: float) -> torch.Tensor:
    """Return the cross-entropy of each example [batch], smoothed, times the sum of its shares.

    torch's own would spread the smoothed part over the classes whatever the sum of the shares is.

    Args:
        logits: [batch, classes].
        shares: Probability of each class times the weight of the example [batch, classes].
        smoothing: Share of each label that is spread over all classes.
    """
    scores = functional.log_softmax(logits, dim=-1)
    spread = shares.sum(dim=-1) * scores.mean(dim=-1)
    return -((1 - smoothing) * (shares * scores).sum(dim=-1) + smoothing * spread)
