"""Fields of ``data`` and ``data.augment`` in recipes for texts."""

from typing import Literal

from pydantic import Field

from hf_finetune.fields.base import Part
from hf_finetune.fields.types import Count

__all__ = ["TextAugmentFields", "TextFields"]


class TextFields(Part):
    """Length of the texts."""

    max_length: Count | None = Field(
        default=None,
        description="Longest text in tokens, longer ones are cut; null = the checkpoint's.",
    )
    truncation_side: Literal["right", "left"] = Field(
        default="right", description="The end at which long texts are cut."
    )


class TextAugmentFields(Part):
    """How training texts are varied."""

    mask: float = Field(
        default=0.0, ge=0, lt=1, description="Probability that a token of a text becomes the mask token."
    )
    drop: float = Field(default=0.0, ge=0, lt=1, description="Probability that a word of a text is left out.")
