"""Classify texts, or pairs of texts."""

from typing import Any, ClassVar, Literal

import torch
from datasets import Dataset
from transformers import DataCollatorWithPadding, PreTrainedConfig

from hf_finetune.data.prepare import LabelledData
from hf_finetune.data.seeded import SeededExamples
from hf_finetune.data.text_augment import AugmentedTexts, text_noise
from hf_finetune.data.texts import count_tokens, resolve_max_length, tokenize
from hf_finetune.models.build import build_skeleton
from hf_finetune.models.positions import position_limit
from hf_finetune.recipe.schema import DataSpec
from hf_finetune.tasks.base import Inputs

__all__ = ["TextClassification"]


class TextClassification:
    """One label, several labels or an amount for each text."""

    name: ClassVar[str] = "text-classification"
    modality: ClassVar[Literal["image", "text"]] = "text"

    def configure(self, processor: Any, config: PreTrainedConfig, data: DataSpec) -> None:
        """Set the longest length and the side that is cut, so that inference cuts as training does.

        Raises:
            InputError: If the length is beyond the checkpoint's, or tokens are to be masked and there is no mask token.
        """
        positions = position_limit(build_skeleton(config, self.modality))
        processor.model_max_length = resolve_max_length(processor, data.max_length, positions)
        processor.truncation_side = data.truncation_side
        text_noise(processor, data.augment.mask, data.augment.drop)
        if config.pad_token_id is None:
            config.pad_token_id = processor.pad_token_id

    def prepare(self, data: LabelledData, processor: Any, spec: DataSpec, seed: int) -> Inputs:
        """Tokenise once; a batch is of texts of about one length, and padded to its longest."""
        varied = spec.augment.varies(self.modality)

        def encode(split: Dataset, words: bool = False, training: bool = False) -> Dataset:
            length, side = spec.max_length, spec.truncation_side
            return tokenize(split, processor, length, side, words=words, training=training)

        train: Any = encode(data.train, varied, training=True)
        validation = encode(data.validation) if data.validation is not None else None
        lengths = count_tokens(train) if spec.group_by_length else None
        if varied:
            noise = text_noise(processor, spec.augment.mask, spec.augment.drop)
            train = SeededExamples(AugmentedTexts(train, noise), seed)
        return Inputs(train, validation, DataCollatorWithPadding(processor), lengths)

    def dummy(self, processor: Any) -> dict[str, torch.Tensor]:
        """Make one short text."""
        return dict(processor("a", return_tensors="pt"))
