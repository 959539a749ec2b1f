"""Recipe fields for data augmentation."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from hf_finetune.recipe.fields import Argument, Text, as_tuple
from hf_finetune.recipe.strict_model import Part

__all__ = ["AugmentSpec", "TransformSpec"]


class TransformSpec(Part):
    """A transform of torchvision or timm."""

    shorthand = "name"

    name: Text = Field(
        description="Name in torchvision.transforms.v2 or in timm.data, such as RandomRotation."
    )
    args: dict[str, Argument] = Field(
        default_factory=dict, description="Its arguments, in its own units: degrees, scale, p, ..."
    )


class AugmentSpec(Part):
    """How training examples are varied; validation and test examples never are."""

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
    mask: float = Field(
        default=0.0, ge=0, lt=1, description="Probability that a token of a text becomes the mask token."
    )
    drop: float = Field(default=0.0, ge=0, lt=1, description="Probability that a word of a text is left out.")

    def varies(self, modality: str) -> bool:
        """Return whether training examples of a modality, ``image`` or ``text``, are augmented."""
        if modality == "text":
            return self.mask > 0 or self.drop > 0
        return self.preset != "none"

    def transform_list(self) -> list[tuple[str, dict[str, Any]]]:
        """Return the transforms as (name, arguments) pairs."""
        return [(transform.name, dict(transform.args)) for transform in self.transforms]
