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
        description="Maximum number of tokens of a text; longer texts are truncated, and their number is printed; "
        "null = the checkpoint's.",
    )
    truncation_side: Literal["right", "left"] = Field(
        default="right", description="Side on which longer texts are truncated."
    )


class TextAugmentFields(Part):
    """Augmentation of training texts."""

    mask: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="Probability that a token of a text is replaced by the mask token; special tokens are kept "
        "(Devlin et al. 2019). No measured benefit.",
    )
    drop: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="Probability that a word of a text is dropped (Bowman et al. 2016; Dai & Le 2015). "
        "No measured benefit.",
    )
