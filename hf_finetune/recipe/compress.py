"""Recipe fields for pruning a model before a stage trains it."""

from typing import Literal

from pydantic import Field

from hf_finetune.fields.base import Part

__all__ = ["CompressSpec"]


class CompressSpec(Part):
    """Pruning of a model before a stage trains it, which recovers the lost accuracy."""

    shorthand = "prune"

    prune: float = Field(
        gt=0,
        lt=1,
        description="Fraction to remove: of the neurons of each feed-forward layer, or of the weights.",
    )
    method: Literal["structured", "unstructured"] = Field(
        default="structured",
        description="structured = removes the neurons with the smallest weights, so that feed-forward layers get "
        "narrower, and the saved config has the smaller width; unstructured = sets the smallest "
        "weights of the linear and convolution layers, except for the head, to 0, where they stay; "
        "size and speed of the model do not change.",
    )
