"""Augmentation of training images by a preset or by a list of torchvision and timm transforms."""

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

from hf_finetune.errors import Problem, suggestion
from hf_finetune.tasks.image.transforms import (
    Size,
    Transform,
    edges,
    min_edge_for_crops,
    to_rgb,
    train_transform,
)

__all__ = [
    "SEEDS_PRESET_RANGES",
    "TRANSFORMS",
    "build_augmentation",
    "check_transforms",
    "keras_matrix",
    "pre_resize_edge",
]

TransformList = Sequence[tuple[str, Mapping[str, Any]]]
"""Transforms as (name, arguments) pairs."""

TORCHVISION_TRANSFORMS = (
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
TIMM_TRANSFORMS: dict[str, Callable[..., Any]] = {
    "RandomCropOrPad": timm_transforms.RandomCropOrPad,
    "RandomResizedCropAndInterpolation": timm_transforms.RandomResizedCropAndInterpolation,
    "augment_and_mix_transform": auto_augment.augment_and_mix_transform,
    "auto_augment_transform": auto_augment.auto_augment_transform,
    "rand_augment_transform": auto_augment.rand_augment_transform,
}
TRANSFORMS: dict[str, Callable[..., Any]] = {
    **{name: getattr(v2, name) for name in TORCHVISION_TRANSFORMS},
    **TIMM_TRANSFORMS,
}
"""Transforms that a recipe can use, by name. No other name is ever looked up."""

# Parameters that a recipe cannot set: they do not augment a single image, or take objects that YAML cannot express.
EXCLUDED_ARGUMENTS = ("hparams", "inplace", "transforms")
TENSOR_TRANSFORMS = ("RandomErasing",)
CHECK_SIZE = 224
"""Input size, in pixels, used in place of the model's while transforms are only checked."""

SEEDS_PRESET_RANGES = {"angle": 20.0, "shift": 0.2, "shear": 0.2, "zoom": 0.2}
"""Ranges of the preset ``seeds``: angle in degrees, shift as a fraction of the edges, shear in radians, zoom as a
fraction of the size."""
PRE_RESIZE_FACTOR = 6.0
"""Factor of the model's input size to which the shorter edge of an image is reduced before the recipe's transforms.
It is large enough that even torchvision's smallest crop, 0.08 of the area, is hardly enlarged."""


def check_transforms(transforms: TransformList) -> list[Problem]:
    """Check the names and arguments of transforms by constructing each of them.

    Args:
        transforms: Names and arguments of ``data.augment.transforms``, in order of application.

    Returns:
        One problem for each unknown name, unknown argument or rejected set of arguments.
    """
    problems = []
    for index, (name, arguments) in enumerate(transforms):
        location = f"data.augment.transforms[{index}]"
        if name not in TRANSFORMS:
            rule = "must be a supported transform of torchvision or timm for single images"
            problems.append(
                Problem(f"{location}.name", rule, repr(name), suggestion(name, sorted(TRANSFORMS)))
            )
            continue
        known = [
            argument
            for argument in inspect.signature(TRANSFORMS[name]).parameters
            if argument not in EXCLUDED_ARGUMENTS
        ]
        unknown = [argument for argument in arguments if argument not in known]
        for argument in unknown:
            rule = f"must be an argument of {name}"
            problems.append(
                Problem(
                    f"{location}.args.{argument}",
                    rule,
                    repr(arguments[argument]),
                    suggestion(argument, known),
                )
            )
        if unknown:
            continue
        try:
            _make(name, arguments, CHECK_SIZE, (0.5, 0.5, 0.5))
        except (TypeError, ValueError, AssertionError, KeyError) as error:
            message = " ".join(str(error).split()) or type(error).__name__
            value = (
                ", ".join(f"{argument}: {setting!r}" for argument, setting in arguments.items())
                or "no arguments"
            )
            repair = f"Error: {message.rstrip('.')}."
            problems.append(Problem(location, f"must be valid arguments of {name}", value, repair))
    return problems


def _make(name: str, arguments: Mapping[str, Any], size: Size, mean: Sequence[float]) -> Any:
    """Build a transform. A required ``size`` argument that is missing becomes the model's input size."""
    resolved = dict(arguments)
    parameter = inspect.signature(TRANSFORMS[name]).parameters.get("size")
    if parameter is not None and parameter.default is inspect.Parameter.empty:
        resolved.setdefault("size", edges(size))
    if name in TORCHVISION_TRANSFORMS and isinstance(resolved.get("interpolation"), str):
        resolved["interpolation"] = InterpolationMode(resolved["interpolation"])
    resolved = {
        argument: list(value) if isinstance(value, tuple) else value for argument, value in resolved.items()
    }
    if "hparams" in inspect.signature(TRANSFORMS[name]).parameters:
        gray = tuple(round(255 * channel) for channel in mean)
        resolved["hparams"] = {"translate_const": int(min(edges(size)) * 0.45), "img_mean": gray}
    transform = TRANSFORMS[name](**resolved)
    return SeededByTorch(transform) if name in TIMM_TRANSFORMS else transform


@dataclass(frozen=True)
class SeededByTorch:
    """Wrapper that makes a transform reproducible from torch's global generator alone.

    The transforms of timm draw from the global generators of Python and numpy.

    Attributes:
        transform: Transform of timm.
    """

    transform: Callable[[Image.Image], Image.Image]

    def __call__(self, image: Image.Image) -> Image.Image:
        """Transform an image, and restore the state of both generators afterwards."""
        seed = int(torch.randint(2**31, ()))
        python_state, numpy_state = random.getstate(), np.random.get_state()
        random.seed(seed)
        np.random.seed(seed)
        try:
            return self.transform(image)
        finally:
            random.setstate(python_state)
            np.random.set_state(numpy_state)


def pre_resize_edge(preset: str | None, transforms: TransformList, size: Size) -> int:
    """Return the length, in pixels, to which a training image's shorter edge is reduced before augmentation.

    Args:
        preset: As in ``build_augmentation``.
        transforms: As in ``build_augmentation``.
        size: Height and width of the model's input, in pixels; one number for a square.

    Returns:
        Length of the shorter edge.
    """
    if transforms:
        return math.ceil(PRE_RESIZE_FACTOR * max(edges(size)))
    if preset == "seeds":
        return 2 * max(edges(size))
    return min_edge_for_crops(_crop_preset(preset), max(edges(size)))


def _crop_preset(preset: str | None) -> Any:
    """Return the preset whose crop settings a preset uses."""
    return "standard" if preset in (None, "trivial", "randaugment") else preset


def build_augmentation(
    preset: str | None,
    erase: float | None,
    transforms: TransformList,
    size: Size,
    mean: Sequence[float],
    interpolation: str = "bicubic",
) -> Transform:
    """Build the random training transform of a recipe. All randomness comes from torch's global generator.

    Args:
        preset: ``light``, ``standard`` and ``strong`` as in ``train_transform``; ``seeds`` rotates, shifts, shears,
            zooms and flips (see ``KerasAffine``); ``trivial`` and ``randaugment`` crop and flip as ``standard`` does,
            then apply torchvision's TrivialAugmentWide or RandAugment. None is ``standard``, unless there are
            transforms.
        erase: Probability of random erasing; None is the preset's default.
        transforms: Names and arguments of transforms that replace the preset. If the resulting image has another size
            than the model's input, it is resized to it without keeping the aspect ratio.
        size: Height and width of the result, in pixels; one number for a square.
        mean: Mean of each channel, in 0..1.
        interpolation: ``bilinear``, ``bicubic``, ``lanczos`` or ``suggestion``.

    Returns:
        A function from a PIL image to a uint8 tensor [3, height, width].

    Source: Mueller & Hutter 2021 (TrivialAugment), Cubuk et al. 2020 (RandAugment), Zhong et al. 2020 (erasing).
    """
    if preset in ("light", "standard", "strong") or (preset is None and not transforms):
        preset_transform: Any = train_transform(_crop_preset(preset), size, mean, interpolation)
        keeps_erasing = erase is None or (erase == 0 and preset != "strong")
        if keeps_erasing:
            return preset_transform
        replaced = (v2.RandomErasing, v2.ToPureTensor)  # appended again below
        steps = [step for step in preset_transform.transforms if not isinstance(step, replaced)]
    else:
        steps = [to_rgb, *_steps(preset, transforms, size, mean, InterpolationMode(interpolation))]
    if erase:
        steps.append(v2.RandomErasing(p=erase, value=[round(255 * channel) for channel in mean]))
    return v2.Compose([*steps, v2.ToPureTensor()])


def _steps(
    preset: str | None, transforms: TransformList, size: Size, mean: Sequence[float], mode: InterpolationMode
) -> list[Any]:
    """Return the steps that turn an RGB image into a uint8 tensor [3, height, width]."""
    gray = [round(255 * channel) for channel in mean]
    if preset == "seeds":
        resize = v2.Resize(edges(size), interpolation=mode)
        return [resize, v2.ToImage(), KerasAffine(**SEEDS_PRESET_RANGES), v2.RandomHorizontalFlip()]
    if preset in ("trivial", "randaugment"):
        crop = v2.RandomResizedCrop(edges(size), scale=(0.5, 1.0), ratio=(0.8, 1.25), interpolation=mode)
        policy = {"trivial": v2.TrivialAugmentWide, "randaugment": v2.RandAugment}[preset]
        vary = policy(fill=gray, interpolation=InterpolationMode.BILINEAR)
        return [crop, v2.RandomHorizontalFlip(), vary, v2.ToImage()]
    steps: list[Any] = []
    for name, arguments in transforms:
        if name in TENSOR_TRANSFORMS:
            steps += [v2.ToImage(), _make(name, arguments, size, mean), v2.ToPILImage()]
        else:
            steps.append(_make(name, arguments, size, mean))
    return [*steps, ResizeToInput(size, mode), v2.ToImage()]


@dataclass(frozen=True)
class ResizeToInput:
    """Transform that resizes an image to the model's input size without keeping the aspect ratio.

    Attributes:
        size: Height and width, in pixels; one number for a square.
        mode: Interpolation mode.
    """

    size: Size
    mode: InterpolationMode

    def __call__(self, image: Image.Image) -> Image.Image:
        """Return the image in RGB and in this size."""
        image = image.convert("RGB")
        height, width = edges(self.size)
        if image.size == (width, height):
            return image
        return v2.functional.resize(image, [height, width], interpolation=self.mode)


@dataclass(frozen=True)
class KerasAffine:
    """Random rotation, shift, shear and zoom; pixels from outside the image repeat the nearest edge pixel.

    Attributes:
        angle: Largest rotation, in degrees.
        shift: Largest vertical and horizontal shift, as a fraction of the height and the width.
        shear: Largest shear angle, in radians as in older versions of Keras, for which 0.2 was a common value. Newer
            versions read the number as degrees, and a shear of 0.2 degrees is invisible.
        zoom: Largest relative change of the size, drawn separately for height and width.

    Source: Keras' ``ImageDataGenerator(rotation_range=20, width_shift_range=0.2, height_shift_range=0.2,
        shear_range=0.2, zoom_range=0.2, fill_mode="nearest")``.
    """

    angle: float
    shift: float
    shear: float
    zoom: float

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        """Transform a uint8 image [3, height, width] with six random numbers."""
        angle, down, right, shear, zoom_y, zoom_x = (2 * torch.rand(6) - 1).tolist()
        matrix = keras_matrix(
            angle * math.radians(self.angle),
            (down * self.shift, right * self.shift),
            shear * self.shear,
            (1 + zoom_y * self.zoom, 1 + zoom_x * self.zoom),
        )
        return warp(image, matrix)


def keras_matrix(
    angle: float, shift: tuple[float, float], shear: float, zoom: tuple[float, float]
) -> torch.Tensor:
    """Compute the affine matrix from output to input coordinates: rotation, shift, shear and zoom, in this order.

    Args:
        angle: Rotation angle, in radians.
        shift: Shift down and to the right, as fractions of height and width.
        shear: Shear angle, in radians.
        zoom: Zoom factors of height and width; values below 1 enlarge the content.

    Returns:
        Matrix [2, 3] for (row, column, 1). Coordinates are measured from the image center in units of half the height
        and half the width.
    """
    rotation = torch.tensor(
        [[math.cos(angle), -math.sin(angle), 0.0], [math.sin(angle), math.cos(angle), 0.0], [0.0, 0.0, 1.0]]
    )
    # coordinates are in units of half an edge, so a fraction of the whole edge is doubled
    moved = torch.tensor([[1.0, 0.0, 2 * shift[0]], [0.0, 1.0, 2 * shift[1]], [0.0, 0.0, 1.0]])
    sheared = torch.tensor([[1.0, -math.sin(shear), 0.0], [0.0, math.cos(shear), 0.0], [0.0, 0.0, 1.0]])
    zoomed = torch.diag(torch.tensor([*zoom, 1.0]))
    return (rotation @ moved @ sheared @ zoomed)[:2]


def warp(image: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
    """Warp an image by an affine matrix, with bilinear sampling and edge pixels repeated outside the image.

    Args:
        image: Square uint8 image [3, size, size]: in relative coordinates, angles are preserved only for squares.
        matrix: Matrix [2, 3] of ``keras_matrix``, from output to input coordinates.

    Returns:
        Image of the same shape and dtype.
    """
    swapped = torch.stack([matrix[1, [1, 0, 2]], matrix[0, [1, 0, 2]]])  # torch expects (x, y)
    grid = functional.affine_grid(swapped[None], [1, *image.shape], align_corners=False)
    pixels = image.as_subclass(torch.Tensor)[None].float()
    warped = functional.grid_sample(pixels, grid, mode="bilinear", padding_mode="border", align_corners=False)
    return v2.functional.to_image(warped[0].round().clamp(0, 255).to(torch.uint8))
