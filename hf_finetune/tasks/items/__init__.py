"""Histories of items, such as the films that a customer has seen, and the item that comes next."""

from typing import Any

from hf_finetune.targets.single_label import SingleLabel
from hf_finetune.tasks.base import Task
from hf_finetune.tasks.items.modality import Items

__all__ = ["NEXT_ITEM"]


class _NextItem(Task):
    """Task whose models are masked language models of items."""

    def adapt_model(self, model: Any) -> Any:
        """Return the model with the logits of the items at its masks."""
        from hf_finetune.tasks.items.model import adapt_to_items

        return adapt_to_items(model)


NEXT_ITEM = _NextItem(
    name="next-item",
    title="Next-Item Recommendation",
    modality=Items(),
    auto_model="AutoModelForMaskedLM",
    suffixes=("ForMaskedLM",),
    served_as="fill-mask",
    targets=(SingleLabel.name,),
    has_label_head=False,
    draft_metrics=("hit_rate_at_10", "ndcg_at_10", "mrr"),
)
