"""Classify texts, or pairs of texts."""

from typing import Any, ClassVar, Literal

import torch
from transformers import DataCollatorWithPadding, PreTrainedConfig

from hf_finetune.data.prepare import LabelledData
from hf_finetune.data.texts import resolve_max_length, tokenize
from hf_finetune.recipe.schema import DataSpec
from hf_finetune.tasks.base import Inputs

__all__ = ["TextClassification"]


class TextClassification:
    """One label, several labels or an amount for each text."""

    name: ClassVar[str] = "text-classification"
    modality: ClassVar[Literal["image", "text"]] = "text"

    def configure(self, processor: Any, config: PreTrainedConfig, data: DataSpec) -> None:
        """Set the longest length and the side that is cut, so that inference cuts as training does."""
        processor.model_max_length = resolve_max_length(processor, data.max_length)
        processor.truncation_side = data.truncation_side
        if config.pad_token_id is None:
            config.pad_token_id = processor.pad_token_id

    def prepare(self, data: LabelledData, processor: Any, spec: DataSpec, seed: int) -> Inputs:
        """Tokenise once; a batch is padded to its longest text."""
        splits = [
            None if split is None else tokenize(split, processor, spec.max_length, spec.truncation_side)
            for split in (data.train, data.validation)
        ]
        return Inputs(splits[0], splits[1], DataCollatorWithPadding(processor))

    def dummy(self, processor: Any) -> dict[str, torch.Tensor]:
        """Make one short text."""
        return dict(processor("a", return_tensors="pt"))
