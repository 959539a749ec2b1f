"""Recipe fields for the adapter of a model."""

from typing import Literal

from pydantic import Field

from hf_finetune.fields.base import Part
from hf_finetune.fields.choice import Choice
from hf_finetune.fields.types import Count, Texts

__all__ = ["AdapterSpec", "LowRank"]


class AdapterSpec(Choice):
    """Adapter (peft): a small set of weights that is trained instead of the checkpoint's."""

    shorthand = discriminator = "type"

    type: str = Field(description="Kind of adapter.")
    target: Texts = Field(
        default=("auto",),
        description="Layers that get an adapter: auto = peft's choice for the architecture, else the linear layers "
        "of the backbone, and its convolutions if these have more weights; all-linear = all linear layers "
        "of the backbone; or a suffix of layer names, a regular expression such as /key$/, or a list.",
    )
    save: Literal["merged", "adapter", "both"] = Field(
        default="merged",
        description="Result of the run: merged = the model with the adapter merged into its weights; adapter = "
        "only the adapter, which peft loads on top of the checkpoint; both = both results; if "
        "the head is not linear, only merged is possible.",
    )


class LowRank(Part):
    """Fields of LoRA and DoRA."""

    r: Count = Field(default=8, description="Rank of the matrices (no unit).")
    alpha: Count = Field(
        default=16, description="Scaling; the factor on the product of the matrices is alpha / r."
    )
    dropout: float = Field(default=0.0, ge=0, lt=1, description="Probability of dropping an input.")


class LoraAdapter(LowRank, AdapterSpec):
    """Low-rank adaptation: a product of two matrices is added to the weights (Hu et al. 2022)."""

    type: Literal["lora"]


class DoraAdapter(LowRank, AdapterSpec):
    """Like lora, with a separately trained magnitude vector (Liu et al. 2024)."""

    type: Literal["dora"]


class Ia3Adapter(AdapterSpec):
    """Trained factors on activations (Liu et al. 2022)."""

    type: Literal["ia3"]
