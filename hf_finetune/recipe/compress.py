"""Recipe fields for pruning a model before a stage trains it."""

from typing import Literal

from pydantic import Field

from hf_finetune.fields.base import Part

__all__ = ["CompressSpec"]


class CompressSpec(Part):
    """Pruning of a model before a stage; the stage then recovers the accuracy."""

    shorthand = "prune"

    prune: float = Field(
        gt=0,
        lt=1,
        description="Fraction to remove of the neurons of each feed-forward layer (structured) or of the weights "
        "(unstructured).",
    )
    method: Literal["structured", "unstructured"] = Field(
        default="structured",
        description="structured = removes the neurons with the smallest weights: feed-forward layers get narrower, "
        "also in the saved config; unstructured = sets the smallest weights of the linear and convolution "
        "layers, except for the head, to 0 and keeps them at 0; size and speed of the model do not change.",
    )
