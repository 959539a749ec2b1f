"""Recipe fields for the mixture of several tasks. Each field description states the meaning and the unit."""

from typing import Literal

from pydantic import Field

from hf_finetune.fields.base import Part

__all__ = ["TEMPERATURE", "MixingSpec"]

TEMPERATURE = 2.0


class MixingSpec(Part):
    """Share of each task in the examples of an epoch."""

    shorthand = "method"

    method: Literal["size", "temperature", "equal"] = Field(
        default="size",
        description="Share of each task in the examples of an epoch: size = each example once; temperature = in "
        "proportion to size^(1/temperature) (Raffel et al. 2020, T5); equal = the same for each task. "
        "Experimental.",
    )
    temperature: float = Field(
        default=TEMPERATURE,
        ge=1,
        description="For temperature: temperature (no unit); 1 = in proportion to the sizes; the higher, the more "
        "equal.",
    )
