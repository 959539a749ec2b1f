"""Masked image modeling: masked images with the original pixels as labels, and its loss."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional
from transformers import PreTrainedModel

from hf_finetune.tasks.examples import Inputs, MaskedInputs
from hf_finetune.tasks.image.masked_model import MaskedImageModel
from hf_finetune.tasks.masked_examples import MaskedExamples, masked_loss

__all__ = ["MASKED_SHARE", "MaskedPixels", "PatchMask", "masked_images", "patch_grid", "pixel_loss"]

MASKED_SHARE = 0.6
"""Default share of an image that is masked. Source: Xie et al. 2022, SimMIM, table 1."""
PATCH_SIZE = 32
"""Edge length of a mask patch in pixels, as in SimMIM."""
MIN_PATCHES = 4
"""Minimum number of patches along the shorter edge of an image; patches are smaller if fewer would fit."""


def patch_grid(height: int, width: int) -> tuple[int, int]:
    """Return the number of rows and columns of mask patches that an image is divided into.

    Args:
        height: Height of the image in pixels.
        width: Width of the image in pixels.
    """
    patch = next(
        size for size in (PATCH_SIZE, 16, 8, 4, 2, 1) if min(height, width) >= MIN_PATCHES * size or size == 1
    )
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


def _summed_loss(pixels: torch.Tensor, labels: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    """Return the summed absolute difference of pixels and channels. Source: Xie et al. 2022, SimMIM, section 3.4."""
    return (pixels.float() - labels.where(known, 0.0)).abs().where(known, 0.0).sum()


pixel_loss = masked_loss(_summed_loss)
"""Loss of masked images: the mean absolute difference of the pixels."""


def masked_images(inputs: Inputs, seed: int, share: float | None) -> MaskedInputs:
    """Return images with masked patches, and a wrapper that makes a classifier predict their pixels.

    Args:
        inputs: Images as model inputs, augmented.
        seed: Seed of the run.
        share: Share of the patches to mask; None is ``MASKED_SHARE``.
    """

    def wrap(classifier: PreTrainedModel, seed: int) -> PreTrainedModel:
        image = inputs.collate([inputs.train[0]])["pixel_values"]
        return MaskedImageModel(classifier, image, seed)

    return MaskedInputs(
        MaskedExamples(inputs.train, PatchMask(share or MASKED_SHARE), seed),
        MaskedPixels(inputs.collate),
        pixel_loss,
        unmasked=inputs,
        wrap=wrap,
    )
