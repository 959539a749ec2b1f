"""Split batches of images on the CPU, where a forward pass without gradients gains nothing from a large batch."""

from collections.abc import Iterator, Mapping
from math import ceil
from typing import Any

import torch

from hf_finetune.tasks import spatial_input

__all__ = ["iter_micro_batches"]

MAX_PIXELS = 1_000_000
"""Approximate maximum number of pixels in a micro-batch.

Measured with EfficientNet-lite0 on 32 images of 224 x 224 pixels: 16 at once take no more CPU time than 32 at once, and
add 0.4 to 0.6 GB to the resident memory instead of 1.1 to 1.3 GB.
"""


def iter_micro_batches(batch: Mapping[str, Any], device: torch.device) -> Iterator[dict[str, Any]]:
    """Yield the micro-batches of a batch.

    Args:
        batch: Inputs of a model; images are ``[batch, channels, height, width]``.
        device: Device that runs the forward pass.

    Yields:
        Micro-batches of equal size (the last may be smaller) if the batch contains images and the device is the CPU;
        otherwise the batch itself.
    """
    name = spatial_input(batch)
    images = batch[name] if name is not None else None
    if not isinstance(images, torch.Tensor) or images.ndim != 4 or device.type != "cpu":
        yield dict(batch)
        return
    count = max(1, ceil(len(images) * images.shape[2] * images.shape[3] / MAX_PIXELS))
    size = max(1, ceil(len(images) / count))
    for begin in range(0, len(images), size):
        yield {name: value[begin : begin + size] for name, value in batch.items()}
