"""Fields of ``data`` and ``data.augment`` in recipes for images."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from hf_finetune.fields.base import Part
from hf_finetune.fields.types import Argument, Count, Text, as_tuple

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
        description="Fraction of the shorter edge kept by the centre crop at inference; null = the checkpoint's.",
    )


class TransformSpec(Part):
    """A transform of torchvision or timm."""

    shorthand = "name"

    name: Text = Field(
        description="Name in torchvision.transforms.v2 or in timm.data, such as RandomRotation."
    )
    args: dict[str, Argument] = Field(
        default_factory=dict, description="Its arguments, in its own units: degrees, scale, p, ..."
    )


class ImageAugmentFields(Part):
    """How training images are varied."""

    shorthand = "preset"

    preset: Literal["none", "light", "standard", "strong", "seeds", "trivial", "randaugment"] | None = Field(
        default=None,
        description="How images are varied, by one name; null = standard for images, unless transforms are given.",
    )
    erase: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="Probability that a part of an image is erased; null = the preset's: 0.25 of strong, else 0.",
    )
    transforms: Annotated[tuple[TransformSpec, ...], BeforeValidator(as_tuple)] = Field(
        default=(), description="Transforms of images in their order, in the place of a preset; [] = none."
    )

    def transform_list(self) -> list[tuple[str, dict[str, Any]]]:
        """Return the transforms as (name, arguments) pairs."""
        return [(transform.name, dict(transform.args)) for transform in self.transforms]
