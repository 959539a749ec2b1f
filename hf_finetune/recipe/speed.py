"""Recipe fields for execution mode and caches. Each field description states the meaning and the unit."""

from typing import Any, Literal

from pydantic import Field, model_validator

from hf_finetune.errors import InputError, Problem
from hf_finetune.fields.base import Part
from hf_finetune.fields.types import Count, Views

__all__ = ["PrefixCacheSpec", "SpeedSpec"]


class PrefixCacheSpec(Part):
    """Cache of the outputs of the layers that a stage freezes; they are computed once per example."""

    shorthand = "views"

    views: Views = Field(
        default="auto",
        description="Number of views of each training example, through which epochs cycle; "
        "auto = 1 without augmentation, 2 for up to 10 epochs, else 3; no cache if it does not save time.",
    )
    size_limit: Count = Field(
        default=20_000_000_000, description="Maximum size of the cache folder in bytes."
    )


class SpeedSpec(Part):
    """Execution mode (precision, memory format, compilation) and caches.

    The value ``auto`` sets every field to ``auto``.
    """

    broadcasts_value = True

    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        default="fp32", description="Floating-point format; auto = the fastest one, by measurement."
    )
    memory_format: Literal["auto", "contiguous", "channels_last"] = Field(
        default="contiguous",
        description="Memory order of the dimensions of image tensors; auto = the fastest one, by measurement.",
    )
    compile: Literal["auto", True, False] = Field(
        default=False, description="Whether torch.compile is used; auto = if that is faster, by measurement."
    )
    prefix_cache: PrefixCacheSpec | None = Field(
        default=PrefixCacheSpec(),
        description="Cache of the outputs of frozen layers, which are computed once per example and view; null = "
        "frozen layers are computed in every epoch.",
    )
    decode_once: Literal["auto", True, False] = Field(
        default="auto",
        description="Whether images are decoded once and cached; auto = if that saves time, by measurement.",
    )

    @model_validator(mode="before")
    @classmethod
    def _broadcast_auto(cls, value: Any) -> Any:
        if isinstance(value, str):
            if value != "auto":
                raise InputError(Problem("", "must be auto, or a mapping of fields", repr(value)))
            return dict.fromkeys(cls.model_fields, value)
        return value

    @property
    def is_measured(self) -> bool:
        """Whether a setting of the execution mode is ``auto``, so that the mode is chosen by measurement."""
        return "auto" in (self.precision, self.memory_format, self.compile)
