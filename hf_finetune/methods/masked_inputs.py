"""Loss of masked language modeling and masked image modeling."""

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch.nn import functional

from hf_finetune.targets.losses import valid_labels

__all__ = ["masked_loss"]


def masked_loss(modality: Literal["image", "text"]) -> Callable[..., torch.Tensor]:
    """Return the loss function: the mean over all masked tokens or pixels of a step, over all its micro-batches.

    Text: cross-entropy over the vocabulary. Images: absolute difference of each pixel and channel. Unmasked positions
    are ignored, and the loss of a step without masked positions is 0.

    Source: Devlin et al. 2019, BERT, for texts; Xie et al. 2022, SimMIM, section 3.4, for images.
    """

    def loss(
        outputs: Any, labels: torch.Tensor, num_items_in_batch: torch.Tensor | int | None = None
    ) -> torch.Tensor:
        logits = outputs["logits"] if isinstance(outputs, dict) else outputs[0]
        known = valid_labels(labels)
        if modality == "text":
            total = functional.cross_entropy(logits[known].float(), labels[known], reduction="sum")
        else:
            total = (logits.float() - labels.where(known, 0.0)).abs().where(known, 0.0).sum()
        items = torch.as_tensor(known.sum() if num_items_in_batch is None else num_items_in_batch)
        return total / items.clamp(min=1)

    return loss
