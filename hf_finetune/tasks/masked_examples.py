"""Masked examples with their original content as labels, for self-supervised pretraining.

The mask depends only on the seed, the epoch and the example, as augmentation does.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedModel

from hf_finetune.targets.losses import valid_labels
from hf_finetune.tasks.seeded_augmentation import SeededExamples, set_epoch

__all__ = ["MaskedExamples", "WrappedClassifier", "masked_loss"]


class WrappedClassifier(PreTrainedModel):
    """Model that contains a classifier and trains its backbone for another purpose; the head is not used.

    Attributes:
        classifier: The classifier.
    """

    classifier: PreTrainedModel


class MaskedExamples(SeededExamples):
    """Examples that are masked when they are accessed.

    Args:
        examples: Model inputs by index.
        mask: Function that masks one example with random numbers of torch's global generator.
        seed: Seed of the run.
    """

    def __init__(self, examples: Any, mask: Callable[[Mapping[str, Any]], dict[str, Any]], seed: int):
        super().__init__(_Masked(examples, mask), seed)

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, on which the masks and the views of the examples depend."""
        super().set_epoch(epoch)
        set_epoch(self.dataset.examples, epoch)


@dataclass(frozen=True)
class _Masked:
    examples: Any
    mask: Callable[[Mapping[str, Any]], dict[str, Any]]

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.mask(self.examples[index])


def masked_loss(
    loss_sum: Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor],
) -> Callable[..., torch.Tensor]:
    """Return the loss of masked examples: the mean over all masked positions of a step, over all its micro-batches.

    Unmasked positions are ignored, and the loss of a step without masked positions is 0.

    Args:
        loss_sum: Function of logits, labels and the mask of the valid labels, which returns the summed loss.
    """

    def loss(
        outputs: Any, labels: torch.Tensor, num_items_in_batch: torch.Tensor | int | None = None
    ) -> torch.Tensor:
        logits = outputs["logits"] if isinstance(outputs, dict) else outputs[0]
        valid = valid_labels(labels)
        items = torch.as_tensor(valid.sum() if num_items_in_batch is None else num_items_in_batch)
        return loss_sum(logits, labels, valid) / items.clamp(min=1)

    return loss
