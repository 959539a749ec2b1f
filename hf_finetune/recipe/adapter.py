"""Recipe fields for the adapter of a model."""

from typing import Literal

from pydantic import Field

from hf_finetune.fields.base import Part
from hf_finetune.fields.choice import Choice
from hf_finetune.fields.types import Count, Texts

__all__ = ["AdapterSpec", "LowRank"]


class AdapterSpec(Choice):
    """Small set of weights added to those of the checkpoint, which a stage trains instead of them."""

    shorthand = discriminator = "type"

    type: str = Field(description="Kind of adapter.")
    target: Texts = Field(
        default=("auto",),
        description="Layers that get an adapter: auto = peft's choice for the architecture, otherwise all linear "
        "layers of the backbone, or also its convolutions if these have more weights; or all-linear, "
        "suffixes of layer names, regular expressions such as /key$/, or a list of these.",
    )
    save: Literal["merged", "adapter", "both"] = Field(
        default="merged",
        description="Result of the run: merged = the model with the adapter merged into its weights; adapter = "
        "only the adapter, which peft loads on top of the checkpoint; both = both of them; adapter "
        "and both need the linear head.",
    )


class LowRank(Part):
    """Products of two matrices."""

    r: Count = Field(default=8, description="Rank of the matrices (no unit).")
    alpha: Count = Field(
        default=16, description="Strength; the product of the matrices is multiplied by the factor alpha / r."
    )
    dropout: float = Field(default=0.0, ge=0, lt=1, description="Probability of dropping an input.")


class LoraAdapter(LowRank, AdapterSpec):
    """Products of two matrices (Hu et al. 2022)."""

    type: Literal["lora"]


class DoraAdapter(LowRank, AdapterSpec):
    """As lora, with a separate magnitude (Liu et al. 2024)."""

    type: Literal["dora"]


class Ia3Adapter(AdapterSpec):
    """Factors on activations (Liu et al. 2022)."""

    type: Literal["ia3"]
