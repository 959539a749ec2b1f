"""Training images varied by a preset, or by transforms of torchvision and timm that are named one by one."""

import inspect
import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from timm.data import auto_augment
from timm.data import transforms as timm_transforms
from torch.nn import functional
from torchvision.transforms import InterpolationMode, v2

from hf_finetune.data.images import Size, Transform, edges, needed_edge, to_rgb, train_transform
from hf_finetune.errors import Problem, nearest

__all__ = ["SHIFTS", "TRANSFORMS", "augmented_edge", "check_transforms", "keras_matrix", "varying_transform"]

Named = Sequence[tuple[str, Mapping[str, Any]]]

OF_TORCHVISION = (
    "AugMix",
    "CenterCrop",
    "ColorJitter",
    "ElasticTransform",
    "GaussianBlur",
    "Grayscale",
    "JPEG",
    "Pad",
    "RandAugment",
    "RandomAdjustSharpness",
    "RandomAffine",
    "RandomAutocontrast",
    "RandomChannelPermutation",
    "RandomCrop",
    "RandomEqualize",
    "RandomErasing",
    "RandomGrayscale",
    "RandomHorizontalFlip",
    "RandomInvert",
    "RandomPerspective",
    "RandomPhotometricDistort",
    "RandomPosterize",
    "RandomResizedCrop",
    "RandomRotation",
    "RandomSolarize",
    "RandomVerticalFlip",
    "RandomZoomOut",
    "Resize",
    "TrivialAugmentWide",
)
OF_TIMM: dict[str, Callable[..., Any]] = {
    "RandomCropOrPad": timm_transforms.RandomCropOrPad,
    "RandomResizedCropAndInterpolation": timm_transforms.RandomResizedCropAndInterpolation,
    "augment_and_mix_transform": auto_augment.augment_and_mix_transform,
    "auto_augment_transform": auto_augment.auto_augment_transform,
    "rand_augment_transform": auto_augment.rand_augment_transform,
}
TRANSFORMS: dict[str, Callable[..., Any]] = {
    **{name: getattr(v2, name) for name in OF_TORCHVISION},
    **OF_TIMM,
}
"""What a recipe can name. No other name is ever looked up."""

# What would be no augmentation of one image, or takes what a recipe cannot write.
NOT_OURS = ("hparams", "inplace", "transforms")
ON_TENSORS = ("RandomErasing",)
ANY_SIZE = 224
"""Stands for the model's input size where transforms are only checked."""

SHIFTS = {"angle": 20.0, "shift": 0.2, "shear": 0.2, "zoom": 0.2}
"""The preset ``seeds``: degrees; shares of the image's edges; radians; shares of the image's size."""
LARGEST = 6.0
"""Times the model's input: the shorter edge to which images are reduced before transforms that a recipe names. So
even torchvision's smallest crop, 0.08 of the area, is not enlarged by much."""


def check_transforms(transforms: Named, place: str) -> list[Problem]:
    """Say what is wrong with the names and arguments of transforms, by making each.

    Args:
        transforms: Names and arguments, in their order.
        place: Where they stand in the recipe.
    """
    problems = []
    for index, (name, arguments) in enumerate(transforms):
        here = f"{place}[{index}]"
        if name not in TRANSFORMS:
            rule = "must be a transform of torchvision or timm that varies one image"
            problems.append(Problem(f"{here}.name", rule, repr(name), nearest(name, sorted(TRANSFORMS))))
            continue
        known = _parameters(name)
        unknown = [word for word in arguments if word not in known]
        problems += [
            Problem(
                f"{here}.args.{word}",
                f"must be an argument of {name}",
                repr(arguments[word]),
                nearest(word, known),
            )
            for word in unknown
        ]
        if unknown:
            continue
        try:
            _make(name, arguments, ANY_SIZE, (0.5, 0.5, 0.5))
        except (TypeError, ValueError, AssertionError, KeyError) as error:
            said = " ".join(str(error).split()) or type(error).__name__
            problems.append(
                Problem(
                    here,
                    f"must be arguments that {name} takes",
                    _written(arguments),
                    f"It says: {said.rstrip('.')}.",
                )
            )
    return problems


def _written(arguments: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}: {value!r}" for name, value in arguments.items()) or "no arguments"


def _parameters(name: str) -> list[str]:
    return [word for word in inspect.signature(TRANSFORMS[name]).parameters if word not in NOT_OURS]


def _make(name: str, arguments: Mapping[str, Any], size: Size, mean: Sequence[float]) -> Any:
    """Make a transform. Where it needs a size and none is given, it gets the model's."""
    given = dict(arguments)
    parameter = inspect.signature(TRANSFORMS[name]).parameters.get("size")
    if parameter is not None and parameter.default is inspect.Parameter.empty:
        given.setdefault("size", edges(size))
    if name in OF_TORCHVISION and isinstance(given.get("interpolation"), str):
        given["interpolation"] = InterpolationMode(given["interpolation"])
    given = {word: list(value) if isinstance(value, tuple) else value for word, value in given.items()}
    if "hparams" in inspect.signature(TRANSFORMS[name]).parameters:
        grey = tuple(round(255 * channel) for channel in mean)
        given["hparams"] = {"translate_const": int(min(edges(size)) * 0.45), "img_mean": grey}
    made = TRANSFORMS[name](**given)
    return SeededByTorch(made) if name in OF_TIMM else made


@dataclass(frozen=True)
class SeededByTorch:
    """A transform that draws from Python's and numpy's generators, made to depend on torch's alone.

    Attributes:
        transform: Of timm.
    """

    transform: Callable[[Image.Image], Image.Image]

    def __call__(self, image: Image.Image) -> Image.Image:
        """Transform an image; both generators are left as they were."""
        seed = int(torch.randint(2**31, ()))
        before, of_numpy = random.getstate(), np.random.get_state()
        random.seed(seed)
        np.random.seed(seed)
        try:
            return self.transform(image)
        finally:
            random.setstate(before)
            np.random.set_state(of_numpy)


def augmented_edge(preset: str | None, transforms: Named, size: Size) -> int | None:
    """Say to which shorter edge a training image is reduced first, in pixels; None leaves it as it is.

    Args:
        preset: As in ``varying_transform``.
        transforms: As in ``varying_transform``.
        size: Height and width of the model's input, in pixels; one number for a square.
    """
    if transforms:
        return math.ceil(LARGEST * max(edges(size)))
    if preset == "seeds":
        return 2 * max(edges(size))
    return needed_edge(_base(preset), max(edges(size)))


def _base(preset: str | None) -> Any:
    """Name the preset whose crops another one begins with."""
    return "standard" if preset in (None, "trivial", "randaugment") else preset


def varying_transform(
    preset: str | None,
    erase: float | None,
    transforms: Named,
    size: Size,
    mean: Sequence[float],
    std: Sequence[float],
    interpolation: str = "bicubic",
) -> Transform:
    """Build the transform with chance for training, as a recipe names it. All its chance is torch's.

    Args:
        preset: ``none``, ``light``, ``standard`` and ``strong`` as in ``train_transform``; ``seeds`` rotates, shifts,
            shears, zooms and mirrors, see ``KerasAffine``; ``trivial`` and ``randaugment`` crop and mirror as
            ``standard`` does, and then do what torchvision's TrivialAugmentWide and RandAugment do. None is
            ``standard``, unless there are transforms.
        erase: Probability that a part of the image is erased; None is the preset's own.
        transforms: Names and arguments, in the place of a preset. An image that they leave in another size than the
            model's is squeezed into it.
        size: Height and width of the result, in pixels; one number for a square.
        mean: Mean of each channel, in 0..1.
        std: Standard deviation of each channel, in 0..1.
        interpolation: ``bilinear``, ``bicubic``, ``lanczos`` or ``nearest``.

    Returns:
        A function of an image that gives a uint8 tensor [3, size, size], or a normalised one for ``none``.

    Source: Mueller & Hutter 2021 (TrivialAugment), Cubuk et al. 2020 (RandAugment), Zhong et al. 2020 (erasing).
    """
    if preset in ("none", "light", "standard", "strong") or (preset is None and not transforms):
        made = train_transform(_base(preset), size, mean, std, interpolation)
        if not erase and (preset != "strong" or erase is None):
            return made
        steps = [step for step in made.transforms if not isinstance(step, v2.RandomErasing)][:-1]  # type: ignore[attr-defined]
    else:
        steps = [to_rgb, *_steps(preset, transforms, size, mean, InterpolationMode(interpolation))]
    if erase:
        steps.append(v2.RandomErasing(p=erase, value=[round(255 * channel) for channel in mean]))
    return v2.Compose([*steps, v2.ToPureTensor()])


def _steps(
    preset: str | None, transforms: Named, size: Size, mean: Sequence[float], mode: InterpolationMode
) -> list[Any]:
    """List what makes a uint8 tensor of an RGB image."""
    grey = [round(255 * channel) for channel in mean]
    if preset == "seeds":
        squeeze = v2.Resize(edges(size), interpolation=mode)
        return [squeeze, v2.ToImage(), KerasAffine(**SHIFTS), v2.RandomHorizontalFlip()]
    if preset in ("trivial", "randaugment"):
        crop = v2.RandomResizedCrop(edges(size), scale=(0.5, 1.0), ratio=(0.8, 1.25), interpolation=mode)
        many = {"trivial": v2.TrivialAugmentWide, "randaugment": v2.RandAugment}[preset]
        vary = many(fill=grey, interpolation=InterpolationMode.BILINEAR)
        return [crop, v2.RandomHorizontalFlip(), vary, v2.ToImage()]
    steps: list[Any] = []
    for name, arguments in transforms:
        if name in ON_TENSORS:
            steps += [v2.ToImage(), _make(name, arguments, size, mean), v2.ToPILImage()]
        else:
            steps.append(_make(name, arguments, size, mean))
    return [*steps, Fitted(size, mode), v2.ToImage()]


@dataclass(frozen=True)
class Fitted:
    """Squeezes an image of another size into that of the model.

    Attributes:
        size: Height and width, in pixels; one number for a square.
        mode: How pixels are resampled.
    """

    size: Size
    mode: InterpolationMode

    def __call__(self, image: Image.Image) -> Image.Image:
        """Give the image in RGB and in this size."""
        image = image.convert("RGB")
        height, width = edges(self.size)
        if image.size == (width, height):
            return image
        return v2.functional.resize(image, [height, width], interpolation=self.mode)


@dataclass(frozen=True)
class KerasAffine:
    """Rotates, shifts, shears and zooms by chance; what comes in from outside is the nearest pixel of the edge.

    Attributes:
        angle: Largest rotation, in degrees.
        shift: Largest shift down and to the right, as a share of the height and the width.
        shear: Largest angle of shear, in radians, as Keras meant it when such numbers were written down; in newer
            versions the number is of degrees, of which 0.2 cannot be seen.
        zoom: Largest change of the size, as a share of it; height and width change each by themselves.

    Source: Keras' ``ImageDataGenerator(rotation_range=20, width_shift_range=0.2, height_shift_range=0.2,
        shear_range=0.2, zoom_range=0.2, fill_mode="nearest")``.
    """

    angle: float
    shift: float
    shear: float
    zoom: float

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        """Draw six numbers and apply them to a uint8 image [3, height, width]."""
        angle, down, right, shear, tall, wide = (2 * torch.rand(6) - 1).tolist()
        matrix = keras_matrix(
            angle * math.radians(self.angle),
            (down * self.shift, right * self.shift),
            shear * self.shear,
            (1 + tall * self.zoom, 1 + wide * self.zoom),
        )
        return warp(image, matrix)


def keras_matrix(
    angle: float, shift: tuple[float, float], shear: float, zoom: tuple[float, float]
) -> torch.Tensor:
    """Say where each place of the new image was in the old one: rotated, shifted, sheared and zoomed, in this order.

    Args:
        angle: Of the rotation, in radians.
        shift: Down and to the right, as shares of height and width.
        shear: Its angle, in radians.
        zoom: Of height and width; below 1 enlarges what is seen.

    Returns:
        [2, 3], for rows and columns from the image's centre, of which half the height and the width are 1.
    """
    rotation = torch.tensor(
        [[math.cos(angle), -math.sin(angle), 0.0], [math.sin(angle), math.cos(angle), 0.0], [0.0, 0.0, 1.0]]
    )
    # a share of the whole edge is twice that share of its half
    moved = torch.tensor([[1.0, 0.0, 2 * shift[0]], [0.0, 1.0, 2 * shift[1]], [0.0, 0.0, 1.0]])
    sheared = torch.tensor([[1.0, -math.sin(shear), 0.0], [0.0, math.cos(shear), 0.0], [0.0, 0.0, 1.0]])
    zoomed = torch.diag(torch.tensor([*zoom, 1.0]))
    return (rotation @ moved @ sheared @ zoomed)[:2]


def warp(image: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
    """Take each pixel from where a matrix says that it was, from outside the nearest of the edge.

    Args:
        image: uint8 [3, height, width]; square, for an angle is one only there.
        matrix: From ``keras_matrix``.
    """
    swapped = torch.stack([matrix[1, [1, 0, 2]], matrix[0, [1, 0, 2]]])  # columns come first in torch
    grid = functional.affine_grid(swapped[None], [1, *image.shape], align_corners=False)
    pixels = image.as_subclass(torch.Tensor)[None].float()
    warped = functional.grid_sample(pixels, grid, mode="bilinear", padding_mode="border", align_corners=False)
    return v2.functional.to_image(warped[0].round().clamp(0, 255).to(torch.uint8))
