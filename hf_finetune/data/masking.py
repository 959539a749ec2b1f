"""Masked texts and images with their original content as labels, for self-supervised pretraining.

The mask depends only on the seed, the epoch and the example, as augmentation does.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional
from transformers import DataCollatorForLanguageModeling, DataCollatorForTokenClassification

from hf_finetune.data.seeded_augmentation import SeededExamples, set_epoch
from hf_finetune.errors import InputError, Problem

__all__ = [
    "OF_IMAGES",
    "OF_TOKENS",
    "MaskedExamples",
    "MaskedPixels",
    "PatchMask",
    "masked_texts",
    "patch_grid",
    "token_collate",
]

OF_TOKENS = 0.15
"""Default share of tokens that are masked. Source: Devlin et al. 2019, BERT."""
OF_IMAGES = 0.6
"""Default share of an image that is masked. Source: Xie et al. 2022, SimMIM, table 1."""
PATCH, LEAST = 32, 4
"""Edge length of a mask patch in pixels, as in SimMIM, and the least number of patches along an image's edge.

Patches are smaller if fewer than 4 would fit along the shorter edge.
"""


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
        """Set the epoch, on which the masks and the augmented versions of the examples depend."""
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


def masked_texts(tokenizer: Any, share: float) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    """Return a function that masks the tokens of an example for masked language modeling.

    Of the selected tokens, 80 % become the mask token, 10 % a random token, and 10 % stay unchanged.

    Args:
        tokenizer: Tokenizer of the checkpoint.
        share: Probability that a token is selected.

    Returns:
        Function of one example that also adds ``labels``: the original id of each selected token, else -100.

    Raises:
        InputError: If the tokenizer has no mask token.

    Source: Devlin et al. 2019, as implemented by transformers' ``DataCollatorForLanguageModeling``.
    """
    if tokenizer.mask_token is None:
        rule = "must be a checkpoint with a mask token for continue_pretraining"
        raise InputError(Problem("model.path", rule, "", "Take coral or dann, which mask nothing."))
    return _TokenMask(DataCollatorForLanguageModeling(tokenizer, mlm_probability=share))


@dataclass(frozen=True)
class _TokenMask:
    """Masking function of texts: a class instead of a closure, so that data loader workers can unpickle it."""

    collate: Any

    def __call__(self, example: Mapping[str, Any]) -> dict[str, Any]:
        batch = self.collate([dict(example)])
        return {name: value[0].tolist() for name, value in batch.items()}


def token_collate(tokenizer: Any) -> Callable[[list[dict[str, Any]]], Any]:
    """Return the collate function of masked texts, which pads inputs and labels to the same length."""
    collate: Callable[[list[dict[str, Any]]], Any] = DataCollatorForTokenClassification(tokenizer)
    return collate


def patch_grid(height: int, width: int) -> tuple[int, int]:
    """Return the number of rows and columns of mask patches that an image is divided into.

    Args:
        height: Height of the image in pixels.
        width: Width of the image in pixels.
    """
    patch = next(size for size in (PATCH, 16, 8, 4, 2, 1) if min(height, width) >= LEAST * size or size == 1)
    return max(round(height / patch), 1), max(round(width / patch), 1)


@dataclass(frozen=True)
class PatchMask:
    """Function that draws the mask of an image: ``labels`` [rows, columns], 1 for a masked patch and nan elsewhere.

    The pixels are masked later, by ``MaskedPixels``, once they are normalized as the model expects them.

    Attributes:
        share: Share of the patches that are masked; their number is rounded up.
    """

    share: float

    def __call__(self, example: Mapping[str, Any]) -> dict[str, Any]:
        """Draw the masked patches of one example."""
        rows, columns = patch_grid(*example["pixel_values"].shape[-2:])
        mask = torch.full((rows * columns,), math.nan)
        mask[torch.randperm(len(mask))[: math.ceil(self.share * len(mask))]] = 1.0
        return {"pixel_values": example["pixel_values"], "labels": mask.view(rows, columns)}


@dataclass(frozen=True)
class MaskedPixels:
    """Collate function that sets masked pixels to 0, the mean color, and returns their original values as labels.

    Attributes:
        collate: Collate function that returns normalized images.
    """

    collate: Callable[[list[dict[str, Any]]], Any]

    def __call__(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        """Return ``pixel_values`` and ``labels``, both [batch, 3, height, width]; labels are nan where not masked."""
        pixels = self.collate([{"pixel_values": row["pixel_values"]} for row in examples])["pixel_values"]
        patches = torch.stack([row["labels"] for row in examples])[:, None].nan_to_num(0.0)
        mask = functional.interpolate(patches, size=pixels.shape[-2:], mode="nearest").bool()
        return {"pixel_values": pixels.masked_fill(mask, 0.0), "labels": pixels.where(mask, math.nan)}
