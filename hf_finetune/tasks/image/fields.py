"""Fields of ``data`` and ``data.augment`` in recipes for images."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from hf_finetune.fields.base import Part
from hf_finetune.fields.types import Argument, Count, NonEmptyText, as_tuple

__all__ = ["ImageAugmentFields", "ImageFields", "TransformSpec"]


class ImageFields(Part):
    """Size of the images."""

    image_size: Count | None = Field(
        default=None,
        description="Height and width of the model's input in pixels; null = the checkpoint's.",
    )
    crop_pct: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="Fraction of the shorter edge that the center crop keeps at inference; null = the "
        "checkpoint's.",
    )


class TransformSpec(Part):
    """A transform of torchvision or timm."""

    shorthand = "name"

    name: NonEmptyText = Field(
        description="Name of a transform in torchvision.transforms.v2 or timm.data, such as RandomRotation."
    )
    args: dict[str, Argument] = Field(
        default_factory=dict,
        description="Arguments of the transform by name, with the values that its class takes, such as {degrees: 20}.",
    )


class ImageAugmentFields(Part):
    """Augmentation of training images."""

    shorthand = "preset"

    preset: Literal["none", "light", "standard", "strong", "seeds", "trivial", "randaugment"] | None = Field(
        default=None,
        description="Augmentation of images: none = no augmentation; light = small crops and flips; standard = crops "
        "to at least half of the area, flips and color jitter; strong = standard with stronger color jitter, "
        "grayscale with probability 0.2 and random erasing with probability 0.25; seeds = that of Keras' "
        "ImageDataGenerator (not related to random seeds): rotation by up to 20 degrees, shifts, shear and zoom of "
        "up to 0.2, and flips, filled with the nearest pixel; trivial = TrivialAugment (Mueller & Hutter 2021); "
        "randaugment = RandAugment (Cubuk et al. 2020); null = standard, unless transforms are set.",
    )
    erase: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="Probability that a rectangle of an image is erased (Zhong et al. 2020); null = that of the "
        "preset: 0.25 for strong, else 0. No measured benefit.",
    )
    transforms: Annotated[tuple[TransformSpec, ...], BeforeValidator(as_tuple)] = Field(
        default=(),
        description="Transforms of single images from torchvision or timm, applied in this order instead of a "
        "preset. No measured benefit.",
    )

    def transform_list(self) -> list[tuple[str, dict[str, Any]]]:
        """Return the transforms as (name, arguments) pairs."""
        return [(transform.name, dict(transform.args)) for transform in self.transforms]
