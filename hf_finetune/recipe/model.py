"""Recipe fields for the pretrained checkpoint and its adapter."""

from typing import Literal

from pydantic import Field

from hf_finetune.fields.base import Part
from hf_finetune.fields.types import Count, Location, Patterns, Text, Texts
from hf_finetune.recipe.head import HeadSpec

__all__ = ["AdapterSpec", "ModelSpec"]


class AdapterSpec(Part):
    """Small weights beside the checkpoint's, which a stage trains in their place."""

    shorthand = "type"

    type: Literal["lora", "dora", "ia3"] = Field(
        description="Kind of adapter: lora and dora (products of two matrices), or ia3 (factors)."
    )
    r: Count = Field(default=8, description="Rank (no unit) of the matrices of lora and dora.")
    alpha: Count = Field(
        default=16, description="Strength (no unit) of lora and dora: their product is taken alpha / r times."
    )
    dropout: float = Field(
        default=0.0, ge=0, lt=1, description="Probability of dropping an input of lora and dora."
    )
    target: Texts = Field(
        default=("auto",),
        description="Layers that get it: auto, all-linear, the end of their names, /regex/, or a list.",
    )
    save: Literal["merged", "adapter", "both"] = Field(
        default="merged",
        description="What a run leaves: the model with the adapter merged in, the adapter alone, or both.",
    )


class ModelSpec(Part):
    """The pretrained checkpoint."""

    shorthand = "path"

    path: Location = Field(description="Checkpoint: a Hub id (timm/... for timm's) or a local folder.")
    revision: Text | None = Field(
        default=None, description="Branch, tag or commit on the Hub; null = the main branch."
    )
    adapter: AdapterSpec | None = Field(
        default=None,
        description="Adapter that a stage can train: lora, dora, ia3, or its fields; null = none.",
    )
    head: HeadSpec = Field(default=HeadSpec(), description="Classification head: its type, or its fields.")
    dropout: float | None = Field(
        default=None,
        ge=0,
        lt=1,
        description="Probability of dropping an activation before the head and, in models of transformers, behind "
        "their layers; null = the checkpoint's.",
    )
    drop_path: float | None = Field(
        default=None,
        ge=0,
        lt=1,
        description="Probability of skipping the last block for an example (stochastic depth), in a line from 0 at "
        "the first; null = the checkpoint's.",
    )
    resize_embeddings: bool = Field(
        default=False,
        description="Whether tokens of the tokenizer that the model has no embedding of get a new one.",
    )
    allow_missing: Patterns = Field(
        default=(),
        description="Regular expressions of weight names that the checkpoint may lack or have too many.",
    )
    trust_remote_code: bool = Field(
        default=False,
        description="Declares that the checkpoint needs code of its own; only --trust-remote-code lets it run.",
    )
