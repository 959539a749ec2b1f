"""Images as a model takes them: any PIL image in, a float tensor [3, height, width] out."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image, ImageOps
from torchvision.transforms import InterpolationMode, v2

from hf_finetune.data.labels import encode_labels

__all__ = [
    "Augmentation",
    "ImageTransform",
    "eval_transform",
    "processor_transform",
    "to_rgb",
    "train_transform",
]

Augmentation = Literal["none", "light", "standard", "strong"]
Transform = Callable[[Image.Image], torch.Tensor]

_JITTER = {"standard": 0.2, "strong": 0.4}  # brightness, contrast and saturation; a tenth of it for the hue


def to_rgb(image: Image.Image) -> Image.Image:
    """Show an image of any mode as a viewer would: upright, on white where it is transparent, in 8-bit RGB.

    Args:
        image: Of any PIL mode: RGB(A), grey with or without alpha, palette, bilevel, 16-bit grey, CMYK, ...
    """
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):
        return _from_16_bit(image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


def _from_16_bit(image: Image.Image) -> Image.Image:
    """Scale 0..65535 to 0..255. Pillow's own conversion cuts everything above 255 off, to white."""
    values = np.asarray(image).astype(np.float64).clip(0, 65535)
    return Image.fromarray((values / 257).round().astype(np.uint8)).convert("RGB")


def eval_transform(
    size: int,
    mean: Sequence[float],
    std: Sequence[float],
    interpolation: str = "bicubic",
    crop_pct: float | None = None,
) -> Transform:
    """Build the transform without chance: resize, crop the centre, scale to 0..1, normalise.

    Args:
        size: Height and width of the result, in pixels.
        mean: Mean of each channel, in 0..1.
        std: Standard deviation of each channel, in 0..1.
        interpolation: ``bilinear``, ``bicubic``, ``lanczos`` or ``nearest``.
        crop_pct: The shorter edge becomes ``size / crop_pct`` and the centre is cut out. None squeezes the
            whole image into the square.
    Source: timm's evaluation transform for ``crop_pct``; the ViT image processor of transformers for None.
    """
    mode = InterpolationMode(interpolation)
    if crop_pct is None:
        shape: list[Any] = [v2.Resize([size, size], interpolation=mode)]
    else:
        shape = [v2.Resize(int(size / crop_pct), interpolation=mode), v2.CenterCrop(size)]
    return v2.Compose([to_rgb, *shape, *_to_tensor(mean, std)])


def train_transform(
    augment: Augmentation,
    size: int,
    mean: Sequence[float],
    std: Sequence[float],
    interpolation: str = "bicubic",
    crop_pct: float | None = None,
) -> Transform:
    """Build the transform with chance for training. All its chance comes from torch's global generator.

    Args:
        augment: ``none`` is the evaluation transform. ``light`` crops little and mirrors; ``standard`` crops
            more and varies the colours; ``strong`` varies them more, drops them at times, and erases a part.
        size: Height and width of the result, in pixels.
        mean: Mean of each channel, in 0..1.
        std: Standard deviation of each channel, in 0..1.
        interpolation: ``bilinear``, ``bicubic``, ``lanczos`` or ``nearest``.
        crop_pct: As in ``eval_transform``; used by ``none`` only.
    """
    if augment == "none":
        return eval_transform(size, mean, std, interpolation, crop_pct)
    smallest = 0.8 if augment == "light" else 0.5
    mode = InterpolationMode(interpolation)
    crop = v2.RandomResizedCrop(size, scale=(smallest, 1.0), ratio=(0.8, 1.25), interpolation=mode)
    steps: list[Any] = [to_rgb, crop, v2.RandomHorizontalFlip()]
    if augment in _JITTER:
        jitter = _JITTER[augment]
        steps.append(v2.ColorJitter(brightness=jitter, contrast=jitter, saturation=jitter, hue=jitter / 10))
    if augment == "strong":
        steps.append(v2.RandomGrayscale(0.2))
    steps += _to_tensor(mean, std)
    if augment == "strong":
        steps.append(v2.RandomErasing(p=0.25))
    return v2.Compose(steps)


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
def _one_thread() -> Iterator[None]:
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
    """

    transform: Transform
    classes: int | None = None

    def __call__(self, batch: Mapping[str, Sequence[Any]]) -> dict[str, list[Any]]:
        """Transform a batch of the columns ``image`` and ``label``. The labels come out as ``labels``."""
        with _one_thread():
            pixel_values = [self.transform(to_rgb(image)) for image in batch["image"]]
        if "label" not in batch:
            return {"pixel_values": pixel_values}
        return {"pixel_values": pixel_values, "labels": encode_labels(batch["label"], self.classes)}
