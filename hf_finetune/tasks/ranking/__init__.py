"""Ranking of texts: queries with candidates, whose relevance a cross-encoder scores."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hf_finetune.targets.relevance import Relevance
from hf_finetune.tasks.base import Task
from hf_finetune.tasks.ranking.modality import Ranking

__all__ = ["TEXT_RANKING"]


@dataclass(frozen=True)
class _TextRanking(Task):
    """Task whose models score a query with a candidate."""

    def usage_code(self, model: str, config: Mapping[str, Any], example: str, options: str = "") -> str:
        """Return code that scores a query with each of its candidates, and sorts them."""
        from hf_finetune.tasks.ranking.usage import usage_code

        return usage_code(self.pipeline_name, model, example, options)


TEXT_RANKING = _TextRanking(
    name="text-ranking",
    title="Text Ranking",
    modality=Ranking(),
    auto_model="AutoModelForSequenceClassification",
    suffixes=("ForSequenceClassification",),
    served_as="text-classification",
    targets=(Relevance.name,),
)
