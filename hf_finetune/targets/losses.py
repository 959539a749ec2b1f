"""Loss function of each label type: the sum over valid labels, divided by their number in the whole batch."""

from collections.abc import Callable
from typing import Any

import torch

from hf_finetune.targets.base import TARGETS

__all__ = ["IGNORE_INDEX", "label_weights", "loss_for", "valid_labels"]

IGNORE_INDEX = -100
"""Class index that torch's cross-entropy ignores."""


def valid_labels(labels: torch.Tensor) -> torch.Tensor:
    """Return a mask of the valid labels: integers other than -100, floats other than nan.

    Labels of padding examples are invalid. A regression target of -100 is valid.

    Args:
        labels: Labels of a batch, of any shape.
    """
    return ~labels.isnan() if labels.is_floating_point() else labels != IGNORE_INDEX


def label_weights(labels: torch.Tensor, target: str) -> torch.Tensor:
    """Return the weight of each label in the loss: 1, or the weight of its example, or 0 for a padding example.

    Args:
        labels: Labels as in ``loss_for``; single-label ones may be class probabilities times the weight of the example
            [batch, classes].
        target: Name of the target; empty for labels of no target, such as masked inputs.

    Returns:
        Weights [batch], or [batch, classes] (multi-label).
    """
    valid = valid_labels(labels)
    return TARGETS[target].label_weights(labels, valid) if target else valid


def loss_for(target: str, label_smoothing: float = 0.0) -> Callable[..., torch.Tensor]:
    """Return the loss function: the sum over the micro-batch, divided by the number of labels in the whole batch.

    The gradient is thus that of the mean over the batch, on any number of micro-batches and processes. Labels of
    padding examples are ignored.

    Single-label labels may be class probabilities [batch, classes], as from mixup, times the weight of the example; the
    sum is then divided by the sum of the weights. Labels are not passed to the model: it would take probabilities for
    multi-label data, and write that to its config.

    Args:
        target: Name of a registered target, which determines the loss.
        label_smoothing: Share of each label's weight that is distributed over all classes, in [0, 1).

    Returns:
        Function of outputs (with logits [batch, classes]), labels and ``num_items_in_batch`` (by default the number of
        labels of the micro-batch) to a scalar.

    Raises:
        ValueError: If the target is unknown.
    """
    kind = TARGETS[target]

    def loss(
        outputs: Any, labels: torch.Tensor, num_items_in_batch: torch.Tensor | int | None = None
    ) -> torch.Tensor:
        logits = outputs["logits"] if isinstance(outputs, dict) else outputs[0]
        logits, valid = logits.float(), valid_labels(labels)
        items = label_weights(labels, target).sum() if num_items_in_batch is None else num_items_in_batch
        total = kind.loss_sum(logits, labels, valid, label_smoothing)
        return total / items

    return loss
