"""Fields of ``data`` and ``data.augment`` in recipes for histories of items."""

from pydantic import Field

from hf_finetune.fields.base import Part
from hf_finetune.fields.types import Count

__all__ = ["ItemAugmentFields", "ItemFields"]


class ItemFields(Part):
    """Length of histories of items, and the items that can be recommended."""

    max_items: Count = Field(
        default=50,
        description="Maximum number of items of a history that the model reads; older items are left out.",
    )
    exclude_seen: bool = Field(
        default=False,
        description="Whether items of the history are never predicted: true for films that are watched once, false "
        "for goods that are bought again. Baselines follow the same rule.",
    )


class ItemAugmentFields(Part):
    """Masking of training histories of items."""

    masked_items: float = Field(
        default=0.2,
        ge=0,
        lt=1,
        description="Probability that an item of a training history is masked and has to be predicted from the items "
        "before and after it (Sun et al. 2019, BERT4Rec); 0 = only the next item is predicted.",
    )
    next_only: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="Probability that a training history ends at a random place and only the item that follows is "
        "predicted, as at inference; the other histories are masked.",
    )
