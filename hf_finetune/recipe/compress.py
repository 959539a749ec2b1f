"""Recipe fields for pruning a model before a stage trains it."""

from typing import Literal

from pydantic import Field

from hf_finetune.fields.base import Part

__all__ = ["CompressSpec"]


class CompressSpec(Part):
    """Pruning of a model before a stage trains it, which recovers the loss in quality."""

    shorthand = "prune"

    prune: float = Field(
        gt=0,
        lt=1,
        description="Fraction that goes: of the neurons of each feed-forward layer, or of single weights.",
    )
    method: Literal["structured", "unstructured"] = Field(
        default="structured",
        description="structured: feed-forward layers get narrower, by a fraction of their neurons; unstructured: "
        "the smallest weights of the backbone become 0 and stay so, and the model keeps its shape.",
    )
