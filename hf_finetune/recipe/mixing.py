"""Recipe fields for the mixture of several tasks. Each field description states the meaning and the unit."""

from typing import Literal

from pydantic import Field

from hf_finetune.fields.choice import Choice

__all__ = ["MixingSpec"]


class MixingSpec(Choice):
    """Fraction of each task in the examples of an epoch."""

    shorthand = discriminator = "method"

    method: str = "size"

    @property
    def exponent(self) -> float:
        """Exponent in [0, 1]: the fraction of a task is proportional to this power of its number of examples."""
        return 1.0


class BySize(MixingSpec):
    """In proportion to the sizes: each example once per epoch."""

    method: Literal["size"] = "size"


class WithTemperature(MixingSpec):
    """In proportion to size^(1/temperature) (Raffel et al. 2020, T5). No measured benefit."""

    method: Literal["temperature"]
    temperature: float = Field(
        default=2.0,
        ge=1,
        description="The sizes are raised to the power 1 / temperature (no unit); 1 = in proportion to "
        "the sizes; higher values result in more equal fractions.",
    )

    @property
    def exponent(self) -> float:
        """Inverse of the temperature."""
        return 1 / self.temperature


class EqualShares(MixingSpec):
    """Equal fractions. No measured benefit."""

    method: Literal["equal"]

    @property
    def exponent(self) -> float:
        """Zero."""
        return 0.0
