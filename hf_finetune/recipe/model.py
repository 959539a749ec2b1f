"""Recipe fields for the pretrained checkpoint and its adapter."""

from typing import Literal

from pydantic import Field

from hf_finetune.fields.base import Part
from hf_finetune.fields.types import Count, Location, Patterns, Text, Texts
from hf_finetune.recipe.head import HeadSpec

__all__ = ["AdapterSpec", "ModelSpec"]


class AdapterSpec(Part):
    """Small set of weights added to those of the checkpoint, which a stage trains instead of them."""

    shorthand = "type"

    type: Literal["lora", "dora", "ia3"] = Field(
        description="Kind of adapter: lora = products of two matrices (Hu et al. 2022); dora = the same with a "
        "separate magnitude (Liu et al. 2024); ia3 = factors on activations (Liu et al. 2022)."
    )
    r: Count = Field(default=8, description="For lora and dora: rank of the matrices (no unit).")
    alpha: Count = Field(
        default=16,
        description="For lora and dora: strength; the product of the matrices is multiplied by the factor alpha / "
        "r.",
    )
    dropout: float = Field(
        default=0.0, ge=0, lt=1, description="For lora and dora: probability of dropping an input."
    )
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


class ModelSpec(Part):
    """The pretrained checkpoint."""

    shorthand = "path"

    path: Location = Field(description="Checkpoint: a Hub id (timm/... for timm's) or a local folder.")
    revision: Text | None = Field(
        default=None,
        description="Branch, tag or commit of the checkpoint on the Hub; null = the main branch.",
    )
    adapter: AdapterSpec | None = Field(
        default=None,
        description="Adapter that stages can train: its type, or its fields; null = none.",
    )
    head: HeadSpec = Field(default=HeadSpec(), description="Classification head: its type, or its fields.")
    dropout: float | None = Field(
        default=None,
        ge=0,
        lt=1,
        description="Probability of dropping an activation before the head and, in models of transformers, after "
        "their layers (Srivastava et al. 2014); the dropout of the attention weights does not change; "
        "null = the checkpoint's. Experimental.",
    )
    drop_path: float | None = Field(
        default=None,
        ge=0,
        lt=1,
        description="Probability of skipping the last block for an example (stochastic depth, Huang et al. 2016); "
        "it decreases linearly to 0 at the first block; null = the checkpoint's. Experimental.",
    )
    resize_embeddings: bool = Field(
        default=False,
        description="Whether tokens of the checkpoint's tokenizer for which the model has no embedding get a new "
        "one; otherwise, they are an error.",
    )
    allow_missing: Patterns = Field(
        default=(),
        description="Regular expressions of the names of weights that the checkpoint may lack, or contain in "
        "addition to those of the model.",
    )
    trust_remote_code: bool = Field(
        default=False,
        description="Declares that the checkpoint needs code of its own; only the option --trust-remote-code lets "
        "it run.",
    )
