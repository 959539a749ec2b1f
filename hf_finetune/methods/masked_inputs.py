"""The loss of filling in what is masked."""

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch.nn import functional

from hf_finetune.targets.losses import valid_labels

__all__ = ["masked_loss"]


def masked_loss(modality: Literal["image", "text"]) -> Callable[..., torch.Tensor]:
    """Give the loss: the mean over all masked tokens or pixels of a step, however many micro-batches share it.

    Tokens: cross-entropy over the vocabulary. Pixels: the absolute difference, of each channel. What is not masked does
    not count, and a step without anything masked is 0.

    Source: Devlin et al. 2019, BERT, for texts; Xie et al. 2022, SimMIM, section 3.4, for images.
    """

    def loss(
        outputs: Any, labels: torch.Tensor, num_items_in_batch: torch.Tensor | int | None = None
    ) -> torch.Tensor:
        logits = outputs["logits"] if isinstance(outputs, dict) else outputs[0]
        known = valid_labels(labels)
        if modality == "text":
            each = functional.cross_entropy(logits[known].float(), labels[known], reduction="sum")
        else:
            each = (logits.float() - labels.where(known, 0.0)).abs().where(known, 0.0).sum()
        items = torch.as_tensor(known.sum() if num_items_in_batch is None else num_items_in_batch)
        return each / items.clamp(min=1)

    return loss
