"""Examples of which a part is masked, and what was there: for training without labels.

What is masked depends on the seed, the epoch and the example only, as augmentation does.
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
"""Share of the tokens that is masked by default. Source: Devlin et al. 2019, BERT."""
OF_IMAGES = 0.6
"""Share of an image that is masked by default. Source: Xie et al. 2022, SimMIM, table 1."""
PATCH, LEAST = 32, 4
"""Edge of a masked patch in pixels, as in SimMIM; smaller where fewer than 4 patches would fit along an edge."""


class MaskedExamples(SeededExamples):
    """Examples that are masked when they are taken.

    Args:
        examples: Gives inputs of the model by index.
        mask: Masks one, drawing from torch's global generator.
        seed: The run's.
    """

    def __init__(self, examples: Any, mask: Callable[[Mapping[str, Any]], dict[str, Any]], seed: int):
        super().__init__(_Masked(examples, mask), seed)

    def set_epoch(self, epoch: int) -> None:
        """Draw other masks, and other versions of the examples, from here on."""
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
    """Give what masks tokens: of the chosen ones 8 in 10 become the mask token, 1 another token, and 1 stays.

    Args:
        tokenizer: The checkpoint's.
        share: Probability of a token to be chosen.

    Returns:
        Makes ``labels`` of an example: the token that was there, or -100 where none was chosen.

    Raises:
        InputError: If the tokenizer has no mask token.
    Source: Devlin et al. 2019, as transformers' ``DataCollatorForLanguageModeling`` does it.
    """
    if tokenizer.mask_token is None:
        rule = "must be a checkpoint with a mask token for continue_pretraining"
        raise InputError(Problem("model.path", rule, "", "Take coral or dann, which mask nothing."))
    return _TokenMask(DataCollatorForLanguageModeling(tokenizer, mlm_probability=share))


@dataclass(frozen=True)
class _TokenMask:
    """A class and not a closure, so that it can be sent to data loader processes."""

    collate: Any

    def __call__(self, example: Mapping[str, Any]) -> dict[str, Any]:
        found = self.collate([dict(example)])
        return {name: value[0].tolist() for name, value in found.items()}


def token_collate(tokenizer: Any) -> Callable[[list[dict[str, Any]]], Any]:
    """Give what makes a batch of masked texts: inputs and labels padded alike."""
    collate: Callable[[list[dict[str, Any]]], Any] = DataCollatorForTokenClassification(tokenizer)
    return collate


def patch_grid(height: int, width: int) -> tuple[int, int]:
    """Say into how many patches an image is divided to be masked: rows and columns.

    Args:
        height: In pixels.
        width: In pixels.
    """
    patch = next(size for size in (PATCH, 16, 8, 4, 2, 1) if min(height, width) >= LEAST * size or size == 1)
    return max(round(height / patch), 1), max(round(width / patch), 1)


@dataclass(frozen=True)
class PatchMask:
    """Mask patches of an image: ``labels`` [rows, columns] are 1 where a patch is masked, and nan elsewhere.

    The pixels are left to ``MaskedPixels``, which sees them as the model does.

    Attributes:
        share: Of the patches, rounded up.
    """

    share: float

    def __call__(self, example: Mapping[str, Any]) -> dict[str, Any]:
        """Draw the patches of one example."""
        rows, columns = patch_grid(*example["pixel_values"].shape[-2:])
        mask = torch.full((rows * columns,), math.nan)
        mask[torch.randperm(len(mask))[: math.ceil(self.share * len(mask))]] = 1.0
        return {"pixel_values": example["pixel_values"], "labels": mask.view(rows, columns)}


@dataclass(frozen=True)
class MaskedPixels:
    """Make a batch whose masked pixels are 0, the mean colour, and whose labels are what they were.

    Attributes:
        collate: Makes a batch of images, normalised.
    """

    collate: Callable[[list[dict[str, Any]]], Any]

    def __call__(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        """Give ``pixel_values`` and ``labels`` [batch, 3, height, width]; labels are nan where nothing is masked."""
        pixels = self.collate([{"pixel_values": one["pixel_values"]} for one in examples])["pixel_values"]
        patches = torch.stack([one["labels"] for one in examples])[:, None].nan_to_num(0.0)
        mask = functional.interpolate(patches, size=pixels.shape[-2:], mode="nearest").bool()
        return {"pixel_values": pixels.masked_fill(mask, 0.0), "labels": pixels.where(mask, math.nan)}
