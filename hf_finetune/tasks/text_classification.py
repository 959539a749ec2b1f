"""Classification and regression of texts or pairs of texts."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from datasets import Dataset
from transformers import DataCollatorWithPadding, PreTrainedConfig

from hf_finetune.data.extreme_examples import text_lengths
from hf_finetune.data.prepare import LabelledData
from hf_finetune.data.seeded_augmentation import SeededExamples
from hf_finetune.data.text_augment import AugmentedTexts, text_noise
from hf_finetune.data.texts import (
    CUT,
    checkpoint_limit,
    count_tokens,
    pad_right,
    resolve_max_length,
    tokenize,
)
from hf_finetune.data.truncation import Truncation
from hf_finetune.models.build import build_skeleton
from hf_finetune.models.max_tokens import position_limit
from hf_finetune.recipe.schema import DataSpec
from hf_finetune.tasks.base import Inputs

__all__ = ["TextClassification"]

# Tokenizer attribute with the limit of the checkpoint, because model_max_length is set to the recipe's length.
_LIMIT = "checkpoint_max_length"
_PADDED_RIGHT = (
    "The checkpoint's tokenizer pads on the left. Here, and in the saved model, it pads on the right: the model has "
    "absolute positions, which left padding would shift, so that predictions would depend on the batch."
)


class TextClassification:
    """Task that predicts one class, several classes or a continuous target for each text."""

    name: ClassVar[str] = "text-classification"
    modality: ClassVar[Literal["image", "text"]] = "text"

    def configure(self, processor: Any, config: PreTrainedConfig, data: DataSpec) -> tuple[str, ...]:
        """Set the maximum length, truncation side and padding side, so that inference matches training.

        Returns:
            A message if the padding side was changed.

        Raises:
            InputError: If the length exceeds the checkpoint's limit, or if masking is requested without a mask token.
        """
        positions = position_limit(build_skeleton(config, self.modality))
        setattr(processor, _LIMIT, checkpoint_limit(processor, positions))
        processor.model_max_length = resolve_max_length(processor, data.max_length, positions)
        processor.truncation_side = data.truncation_side
        text_noise(processor, data.augment.mask, data.augment.drop)
        if config.pad_token_id is None:
            config.pad_token_id = processor.pad_token_id
        return (_PADDED_RIGHT,) if pad_right(processor, positions) else ()

    def prepare(self, data: LabelledData, processor: Any, spec: DataSpec, seed: int) -> Inputs:
        """Return inputs that are tokenized once; batches contain texts of similar length, padded to the longest."""
        varied = spec.augment.varies(self.modality)

        def encode(split: Dataset, words: bool = False, training: bool = False) -> Dataset:
            length, side = spec.max_length, spec.truncation_side
            return tokenize(split, processor, length, side, words=words, training=training, cut=True)

        train: Any = encode(data.train, varied, training=True)
        validation = encode(data.validation) if data.validation is not None else None
        truncation = _truncation(data, {"train": train, "validation": validation}, processor, spec)
        train = train.remove_columns(CUT)
        validation = validation.remove_columns(CUT) if validation is not None else None
        lengths = count_tokens(train) if spec.group_by_length else None
        if varied:
            noise = text_noise(processor, spec.augment.mask, spec.augment.drop)
            train = SeededExamples(AugmentedTexts(train, noise), seed)
        return Inputs(train, validation, DataCollatorWithPadding(processor), lengths, {"": truncation})

    def dummy(self, processor: Any) -> dict[str, torch.Tensor]:
        """Return a batch of one short text."""
        return dict(processor("a", return_tensors="pt"))


def _truncation(
    data: LabelledData, tokenized: Mapping[str, Dataset | None], processor: Any, spec: DataSpec
) -> Truncation:
    """Return the truncation statistics of the splits. Only the longest truncated example is tokenized again."""
    cut = {
        split: np.asarray(rows[CUT][:], dtype=bool) for split, rows in tokenized.items() if rows is not None
    }
    longest, characters = tuple[str, ...](), 0
    for split, flags in cut.items():
        texts: Dataset = getattr(data, split)
        lengths = np.where(flags, text_lengths(texts), 0)
        row = int(lengths.argmax()) if len(lengths) else 0
        if len(lengths) and lengths[row] > characters:
            example = texts[row]
            longest = tuple(example[name] for name in ("text", "text_pair") if name in example)
            characters = int(lengths[row])
    tokens = len(processor(*longest, verbose=False)["input_ids"]) if longest else 0
    return Truncation(
        *(cut, tokens, resolve_max_length(processor, spec.max_length), spec.truncation_side),
        limit=getattr(processor, _LIMIT, checkpoint_limit(processor)),
        pairs="text_pair" in data.train.column_names,
    )
