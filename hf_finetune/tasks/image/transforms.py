"""Image preprocessing: from PIL images to tensors [3, height, width] and float batches [batch, 3, height, width].

Random transforms are applied to each image separately: torchvision's transforms draw once per call, so all images of a
batch would get the same crop. Scaling and normalization, which do not depend on the image, are applied to the batch.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from PIL import Image
from torchvision.transforms import InterpolationMode, v2

from hf_finetune.targets.labels import encode_batch
from hf_finetune.tasks.image.rgb import shrink, to_rgb

__all__ = [
    "Augmentation",
    "ImageTransform",
    "NormalizingCollate",
    "Size",
    "TransformedImages",
    "edges",
    "min_edge_for_crops",
    "one_thread",
    "processed_images",
    "processor_transform",
    "shrink",
    "to_rgb",
    "train_transform",
]

Augmentation = Literal["light", "standard", "strong"]
"""Presets of ``train_transform``."""
Transform = Callable[[Image.Image], torch.Tensor]
Size = int | tuple[int, int]
"""Edge of a square, or height and width, in pixels."""

_JITTER = {"standard": 0.2, "strong": 0.4}  # brightness, contrast and saturation; a tenth of it for hue
_MAX_ASPECT_RATIO = 1.25  # largest aspect ratio of a crop, wide or tall
# An image that is reduced first is resampled twice. With edges 1.5 times as long as the smallest crop needs, the result
# differs from that of a single resampling by half a gray level on average (noise with the spectrum of photographs).
_RESIZE_MARGIN = 1.5


def min_edge_for_crops(augment: Augmentation, size: int) -> int:
    """Compute the shorter edge that a training image needs so that random crops lose no resolution.

    A crop has a fraction ``s`` of the image's area and an aspect ratio ``r``. The image's area is at least the square
    of its shorter edge, so the crop's shorter edge is at least ``sqrt(s / r)`` of the image's. For no crop to be
    enlarged to ``size``, the image's shorter edge must be at least ``size * sqrt(r / s)``; a margin is added.

    Args:
        augment: As in ``train_transform``.
        size: Height and width of the result, in pixels.

    Returns:
        Length in pixels.
    """
    return math.ceil(size * math.sqrt(_MAX_ASPECT_RATIO / _min_crop_area(augment)) * _RESIZE_MARGIN)


def _min_crop_area(augment: Augmentation) -> float:
    """Return the smallest fraction of an image's area that a random crop has."""
    return 0.8 if augment == "light" else 0.5


def edges(size: Size) -> list[int]:
    """Return height and width of a size, in pixels."""
    return [size, size] if isinstance(size, int) else list(size)


def train_transform(
    augment: Augmentation, size: Size, mean: Sequence[float], interpolation: str = "bicubic"
) -> Transform:
    """Build the random training transform. All randomness comes from torch's global generator.

    Regions erased by ``strong`` are filled with the channel means, rounded to uint8: after normalization they differ
    from zero by at most half a gray level. So all presets return uint8, a quarter of the size of floats.

    Args:
        augment: ``light`` crops little and flips horizontally; ``standard`` crops more and jitters colors; ``strong``
            jitters them more, and adds random grayscale and random erasing.
        size: Height and width of the result, in pixels; one number for a square.
        mean: Mean of each channel, in 0..1.
        interpolation: ``bilinear``, ``bicubic``, ``lanczos`` or ``nearest``.

    Returns:
        A function from a PIL image to a uint8 tensor [3, height, width], which ``NormalizingCollate`` scales and
        normalizes.
    """
    mode = InterpolationMode(interpolation)
    scale, ratio = (_min_crop_area(augment), 1.0), (1 / _MAX_ASPECT_RATIO, _MAX_ASPECT_RATIO)
    crop = v2.RandomResizedCrop(edges(size), scale=scale, ratio=ratio, interpolation=mode)
    steps: list[Any] = [to_rgb, crop, v2.RandomHorizontalFlip()]
    if augment in _JITTER:
        jitter = _JITTER[augment]
        steps.append(v2.ColorJitter(brightness=jitter, contrast=jitter, saturation=jitter, hue=jitter / 10))
    if augment == "strong":
        steps.append(v2.RandomGrayscale(0.2))
    steps.append(v2.ToImage())
    if augment == "strong":
        steps.append(v2.RandomErasing(p=0.25, value=[round(255 * channel) for channel in mean]))
    return v2.Compose([*steps, v2.ToPureTensor()])


def processor_transform(processor: Callable[..., Mapping[str, Any]]) -> Transform:
    """Return a transform that applies an image processor of transformers, as ``pipeline`` does at inference.

    Args:
        processor: Image processor loaded by ``AutoImageProcessor.from_pretrained``.
    """
    return _ProcessorTransform(processor)


@dataclass(frozen=True)
class _ProcessorTransform:
    """Transform by an image processor. A class instead of a closure, so that data loader workers can unpickle it."""

    processor: Callable[..., Mapping[str, Any]]

    def __call__(self, image: Image.Image) -> torch.Tensor:
        return self.processor(to_rgb(image), return_tensors="pt")["pixel_values"][0]


def processed_images(
    processor: Callable[..., Mapping[str, Any]],
) -> Callable[[Sequence[Image.Image]], dict[str, torch.Tensor]]:
    """Return a function from images to ``pixel_values`` [images, 3, height, width].

    Args:
        processor: Image processor loaded by ``AutoImageProcessor.from_pretrained``.
    """
    transform = processor_transform(processor)
    return lambda images: {"pixel_values": torch.stack([transform(image) for image in images])}


@contextmanager
def one_thread() -> Iterator[None]:
    """Limit torch to one thread: single images are so small that several threads mostly wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@dataclass(frozen=True)
class ImageTransform:
    """Transform for ``Dataset.with_transform``: from decoded images to the inputs of a model.

    Attributes:
        transform: Function from a PIL image to a tensor [3, height, width]: of this module, of timm, or any other.
        classes: Number of classes of multi-label data, whose labels become multi-hot vectors; None for other data.
        edge: Shorter edge to which much larger images are reduced first, in pixels; None reduces no image.
        fixed: Whether the transform is deterministic.
        training: Whether labels include example weights and class probabilities for the loss.
    """

    transform: Transform
    classes: int | None = None
    edge: int | None = None
    fixed: bool = False
    training: bool = False

    def prepare(self, image: Image.Image) -> Image.Image:
        """Apply the deterministic steps that precede random transforms to an image of any mode. Idempotent."""
        return shrink(to_rgb(image), self.edge)

    def __call__(self, batch: Mapping[str, Sequence[Any]]) -> dict[str, list[Any]]:
        """Transform a batch with the columns ``image`` and ``label`` to ``pixel_values`` and ``labels``."""
        with one_thread():
            pixel_values = [self.transform(self.prepare(image)) for image in batch["image"]]
        return {"pixel_values": pixel_values, **self.encode(batch)}

    def encode(self, batch: Mapping[str, Sequence[Any]]) -> dict[str, list[Any]]:
        """Encode the column ``label``, if there is one, as ``labels``."""
        if "label" not in batch:
            return {}
        return {"labels": encode_batch(batch, self.classes, training=self.training)}


class TransformedImages(torch.utils.data.Dataset):
    """Dataset of transformed images and labels that also exposes the original rows and the transform.

    Args:
        rows: ``Dataset`` with the columns ``image`` (decoded images) and ``label``.
        transform: Transform from rows to the inputs of a model.
    """

    def __init__(self, rows: Any, transform: ImageTransform):
        self.rows, self.transform = rows, transform

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        batch = self.transform({name: [value] for name, value in self.rows[index].items()})
        return {name: values[0] for name, values in batch.items()}


@dataclass(frozen=True)
class NormalizingCollate:
    """Collate function that scales and normalizes uint8 images for the whole batch.

    Float images stay unchanged, because the image processor has normalized them as in inference.

    Attributes:
        collate: Collate function for the examples.
        mean: Mean of each channel, in 0..1.
        std: Standard deviation of each channel, in 0..1.
    """

    collate: Callable[[list[dict[str, Any]]], Mapping[str, Any]]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __call__(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        """Collate examples and normalize their images, if they have any."""
        batch = dict(self.collate(examples))
        pixels = batch.get("pixel_values")
        if pixels is not None and pixels.dtype == torch.uint8:
            mean, std = list(self.mean), list(self.std)
            scaled = v2.functional.to_dtype(pixels, torch.float32, scale=True)
            batch["pixel_values"] = v2.functional.normalize(scaled, mean, std, inplace=True)
        return batch
