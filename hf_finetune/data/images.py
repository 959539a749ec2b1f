"""Images as a model takes them: any PIL image in, a tensor [3, height, width] out, and a float batch of them.

What draws chance is done for each image by itself: torchvision's transforms draw once per call, so that all images
of a batch would be cropped alike. What is the same for all, scaling and normalising, is done once for the batch.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from PIL import Image
from torchvision.transforms import InterpolationMode, v2

from hf_finetune.data.labels import encode_batch
from hf_finetune.data.rgb import shrink, to_rgb

__all__ = [
    "Augmentation",
    "ImageTransform",
    "NormalizingCollate",
    "Size",
    "TransformedImages",
    "edges",
    "eval_transform",
    "needed_edge",
    "one_thread",
    "processor_transform",
    "shrink",
    "to_rgb",
    "train_transform",
]

Augmentation = Literal["none", "light", "standard", "strong"]
Transform = Callable[[Image.Image], torch.Tensor]
Size = int | tuple[int, int]
"""Edge of a square, or height and width, in pixels."""

_JITTER = {"standard": 0.2, "strong": 0.4}  # brightness, contrast and saturation; a tenth of it for the hue
_WIDEST = 1.25  # ratio of the edges of a crop, either way
# An image is resampled twice where it is shrunk first. With half as many pixels again as the smallest crop needs, the
# result differs by half a grey level in the mean from resampling it once (noise with the spectrum of photographs).
_MARGIN = 1.5


def needed_edge(augment: Augmentation, size: int) -> int | None:
    """Say how long the shorter edge of a training image has to be, in pixels, for its crops to be none the worse.

    A crop has a share ``s`` of the image's area and edges of a ratio ``r``. Its shorter edge is then at least
    ``sqrt(s / r)`` of the image's shorter edge, for the image's area is at least the square of that. So that no crop
    is enlarged to ``size``, the image's shorter edge must be ``size * sqrt(r / s)``; a margin comes on top.

    Args:
        augment: As in ``train_transform``.
        size: Height and width of the result, in pixels.

    Returns:
        None for ``none``, which prepares training images as inference does.
    """
    if augment == "none":
        return None
    return math.ceil(size * math.sqrt(_WIDEST / _smallest(augment)) * _MARGIN)


def _smallest(augment: Augmentation) -> float:
    """Give the least share of an image's area that a crop has."""
    return 0.8 if augment == "light" else 0.5


def edges(size: Size) -> list[int]:
    """Return height and width of a size, in pixels."""
    return [size, size] if isinstance(size, int) else list(size)


def eval_transform(
    size: Size,
    mean: Sequence[float],
    std: Sequence[float],
    interpolation: str = "bicubic",
    crop_pct: float | None = None,
) -> Transform:
    """Build the transform without chance: resize, crop the centre, scale to 0..1, normalise.

    Args:
        size: Height and width of the result, in pixels; one number for a square.
        mean: Mean of each channel, in 0..1.
        std: Standard deviation of each channel, in 0..1.
        interpolation: ``bilinear``, ``bicubic``, ``lanczos`` or ``nearest``.
        crop_pct: The shorter edge becomes ``size / crop_pct`` and the centre is cut out. None squeezes the
            whole image into the square.
    Source: timm's evaluation transform for ``crop_pct``; the ViT image processor of transformers for None.
    """
    mode = InterpolationMode(interpolation)
    if crop_pct is None:
        shape: list[Any] = [v2.Resize(edges(size), interpolation=mode)]
    else:
        shape = [v2.Resize(int(min(edges(size)) / crop_pct), interpolation=mode), v2.CenterCrop(edges(size))]
    return v2.Compose([to_rgb, *shape, *_to_tensor(mean, std)])


def train_transform(
    augment: Augmentation,
    size: Size,
    mean: Sequence[float],
    std: Sequence[float],
    interpolation: str = "bicubic",
    crop_pct: float | None = None,
) -> Transform:
    """Build the transform with chance for training. All its chance comes from torch's global generator.

    It gives uint8 tensors, which ``NormalizingCollate`` scales and normalises; ``none`` gives normalised ones. What
    ``strong`` erases becomes the channels' mean, rounded to uint8: at most half a grey level beside the zero that it
    would be after normalising, and all presets stay of one kind, a fourth as large as floats.

    Args:
        augment: ``none`` is the evaluation transform. ``light`` crops little and mirrors; ``standard`` crops
            more and varies the colours; ``strong`` varies them more, drops them at times, and erases a part.
        size: Height and width of the result, in pixels; one number for a square.
        mean: Mean of each channel, in 0..1.
        std: Standard deviation of each channel, in 0..1; used by ``none`` only.
        interpolation: ``bilinear``, ``bicubic``, ``lanczos`` or ``nearest``.
        crop_pct: As in ``eval_transform``; used by ``none`` only.
    """
    if augment == "none":
        return eval_transform(size, mean, std, interpolation, crop_pct)
    mode = InterpolationMode(interpolation)
    scale, ratio = (_smallest(augment), 1.0), (1 / _WIDEST, _WIDEST)
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


def _to_tensor(mean: Sequence[float], std: Sequence[float]) -> list[Any]:
    return [
        v2.ToImage(),
        v2.ToDtype(torch.float32, scale=True),
        v2.Normalize(list(mean), list(std)),
        v2.ToPureTensor(),
    ]


def processor_transform(processor: Callable[..., Mapping[str, Any]]) -> Transform:
    """Make a transform of an image processor of transformers: exactly what ``pipeline`` does at inference.

    Args:
        processor: What ``AutoImageProcessor.from_pretrained`` gives.
    """
    return _ProcessorTransform(processor)


@dataclass(frozen=True)
class _ProcessorTransform:
    """A class and not a closure, so that it can be sent to data loader processes."""

    processor: Callable[..., Mapping[str, Any]]

    def __call__(self, image: Image.Image) -> torch.Tensor:
        return self.processor(to_rgb(image), return_tensors="pt")["pixel_values"][0]


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch use one thread: an image is so small that several wait for each other longer than they work."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@dataclass(frozen=True)
class ImageTransform:
    """What ``Dataset.with_transform`` takes to feed a model: decoded images in, tensors out.

    Attributes:
        transform: Makes a tensor [3, height, width] of one image: of this module, of timm, or any other.
        classes: Number of classes of multi-label data, whose labels become rows of zeros and ones.
        edge: Shorter edge to which much larger images are reduced first, in pixels; None reduces none.
        fixed: Whether an image always becomes the same tensor.
        training: Whether labels carry the weights and probabilities that the loss takes.
    """

    transform: Transform
    classes: int | None = None
    edge: int | None = None
    fixed: bool = False
    training: bool = False

    def prepare(self, image: Image.Image) -> Image.Image:
        """Do to an image of any mode what comes before all chance. Done twice, it changes nothing more."""
        return shrink(to_rgb(image), self.edge)

    def __call__(self, batch: Mapping[str, Sequence[Any]]) -> dict[str, list[Any]]:
        """Transform a batch of the columns ``image`` and ``label``. The labels come out as ``labels``."""
        with one_thread():
            pixel_values = [self.transform(self.prepare(image)) for image in batch["image"]]
        return {"pixel_values": pixel_values, **self.encode(batch)}

    def encode(self, batch: Mapping[str, Sequence[Any]]) -> dict[str, list[Any]]:
        """Encode the column ``label``, if there is one, as ``labels``."""
        if "label" not in batch:
            return {}
        return {"labels": encode_batch(batch, self.classes, training=self.training)}


class TransformedImages(torch.utils.data.Dataset):
    """Images and labels as a model takes them, and what they are made of.

    Args:
        rows: Gives decoded images and labels by index: a ``Dataset`` with the columns ``image`` and ``label``.
        transform: Makes the model's inputs of them.
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
    """Make a batch, and scale and normalise its images where they are still uint8: once, for all of them.

    Images that are floats stay as they are: what the processor made of them is what inference does.

    Attributes:
        collate: Makes a batch of examples.
        mean: Mean of each channel, in 0..1.
        std: Standard deviation of each channel, in 0..1.
    """

    collate: Callable[[list[dict[str, Any]]], Mapping[str, Any]]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __call__(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        """Collate examples; those that hold no image are only collated."""
        batch = dict(self.collate(examples))
        pixels = batch.get("pixel_values")
        if pixels is not None and pixels.dtype == torch.uint8:
            mean, std = list(self.mean), list(self.std)
            scaled = v2.functional.to_dtype(pixels, torch.float32, scale=True)
            batch["pixel_values"] = v2.functional.normalize(scaled, mean, std, inplace=True)
        return batch
