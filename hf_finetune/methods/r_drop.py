"""R-Drop: two passes with different dropout per input, and a loss on the divergence of their predictions."""

import logging
from collections.abc import Mapping
from typing import Any

import torch
from torch.nn import functional

from hf_finetune.methods.base import Loss, Method, StageContext
from hf_finetune.recipe.method_rules import R_DROP
from hf_finetune.targets import TARGETS
from hf_finetune.targets.losses import label_weights

__all__ = ["RDrop", "r_drop_loss", "repeat_batch", "symmetric_kl"]

logger = logging.getLogger(__name__)


class RDrop(Method):
    """Compute two passes with different dropout for each batch, and add the divergence of their predictions.

    Args:
        factor: Factor on the divergence of the two predictions.
    """

    rules = R_DROP

    def __init__(self, factor: float):
        self.factor = factor

    @classmethod
    def build(cls, context: StageContext) -> "RDrop | None":
        """Return the method if the stage sets ``r_drop``, or None."""
        factor = context.stage.spec.regularize.r_drop
        return cls(factor) if factor else None

    def on_inputs(self, inputs: dict[str, Any], *, training: bool) -> dict[str, Any]:
        """Repeat the batch in training."""
        return repeat_batch(inputs) if training else inputs

    def wrap_loss(self, loss: Loss, target: str) -> Loss:
        """Return the R-Drop loss."""
        return r_drop_loss(loss, self.factor, target)


def repeat_batch(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Return a batch with all inputs repeated once, [2 x batch, ...]; the labels are not repeated.

    Args:
        inputs: Tensors [batch, ...], or tuples of such tensors, by name.
    """
    return {name: value if name == "labels" else _twice(value) for name, value in inputs.items()}


def _twice(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return torch.cat([value, value])
    return tuple(_twice(item) for item in value)


def symmetric_kl(first_logits: torch.Tensor, second_logits: torch.Tensor, target: str) -> torch.Tensor:
    """Compute the mean of the Kullback-Leibler divergences of two predictions in both directions.

    Args:
        first_logits: Logits of the first pass [batch, classes].
        second_logits: Logits of the second pass for the same examples [batch, classes].
        target: ``single_label`` (softmax) or ``multi_label`` (sigmoid, each class separately).

    Returns:
        Divergence of each example [batch], or of each label [batch, classes] (multi-label).

    Source: Liang et al. 2021, R-Drop: Regularized Dropout for Neural Networks.
    """
    if TARGETS[target].has_several_classes:
        return (first_logits.sigmoid() - second_logits.sigmoid()) * (first_logits - second_logits) / 2
    first = functional.log_softmax(first_logits, dim=-1)
    second = functional.log_softmax(second_logits, dim=-1)
    return ((first.exp() - second.exp()) * (first - second)).sum(dim=-1) / 2


def r_drop_loss(loss: Loss, factor: float, target: str) -> Loss:
    """Return the R-Drop loss function: the mean loss of two passes plus ``factor`` times their symmetric KL divergence.

    The divergence is a sum over the micro-batch divided by the number of labels in the whole batch. For the logits of a
    single pass, as in evaluations, the function returns ``loss`` alone.

    Args:
        loss: Loss function of the labels, as ``loss_for`` returns it.
        factor: Factor on the divergence, the alpha of the paper's published code.
        target: ``single_label`` or ``multi_label``.
    """
    has_warned = False

    def r_drop(
        outputs: Any, labels: torch.Tensor, num_items_in_batch: torch.Tensor | int | None = None
    ) -> torch.Tensor:
        nonlocal has_warned
        logits = outputs["logits"] if isinstance(outputs, dict) else outputs[0]
        if len(logits) == len(labels):
            return loss(outputs, labels, num_items_in_batch)
        first, second = logits.float().chunk(2)
        mean = (loss((first,), labels, num_items_in_batch) + loss((second,), labels, num_items_in_batch)) / 2
        weights = label_weights(labels, target)
        divergence = (symmetric_kl(first, second, target) * weights).sum()
        if not has_warned and not divergence.any():
            logger.warning("R-Drop has no effect: no trained module has dropout, so both passes are equal.")
        has_warned = True
        count = num_items_in_batch if num_items_in_batch is not None else weights.sum()
        return mean + factor * divergence / count

    return r_drop
