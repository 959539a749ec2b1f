"""Model inputs of texts, and the settings of their tokenizer."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from transformers import DataCollatorWithPadding, PreTrainedConfig, PreTrainedModel

from hf_finetune.tasks.examples import Inputs, Splits
from hf_finetune.tasks.seeded_augmentation import SeededExamples
from hf_finetune.tasks.text.augment import AugmentedTexts, text_noise
from hf_finetune.tasks.text.stored import text_columns, text_lengths
from hf_finetune.tasks.text.tokenization import (
    TRUNCATED,
    checkpoint_limit,
    count_tokens,
    pad_right,
    position_limit,
    resolve_max_length,
    tokenize,
)
from hf_finetune.tasks.text.truncation import Truncation

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = ["configure_tokenizer", "prepare_texts"]

# Tokenizer attribute with the limit of the checkpoint, because model_max_length is set to the recipe's length.
_LIMIT = "checkpoint_max_length"
_PADDING_SIDE_NOTE = (
    "padding_side of the tokenizer was changed from left to right, also in the saved model: the model has absolute "
    "position embeddings, so with left padding predictions would depend on the batch."
)


def configure_tokenizer(
    tokenizer: Any, config: PreTrainedConfig, data: Any, skeleton: PreTrainedModel
) -> tuple[str, ...]:
    """Set the maximum length, truncation side and padding side, so that inference matches training.

    Args:
        tokenizer: Tokenizer of the checkpoint, changed in place.
        config: Config of the model, changed in place.
        data: ``data`` of the recipe.
        skeleton: The model without weights.

    Returns:
        A message if the padding side was changed.

    Raises:
        InputError: If the length exceeds the checkpoint's limit, or if masking is requested without a mask token.
    """
    positions = position_limit(skeleton)
    setattr(tokenizer, _LIMIT, checkpoint_limit(tokenizer, positions))
    tokenizer.model_max_length = resolve_max_length(tokenizer, data.max_length, positions)
    tokenizer.truncation_side = data.truncation_side
    text_noise(tokenizer, data.augment.mask, data.augment.drop)
    if config.pad_token_id is None:
        config.pad_token_id = tokenizer.pad_token_id
    return (_PADDING_SIDE_NOTE,) if pad_right(tokenizer, positions) else ()


def prepare_texts(splits: Splits, processor: Any, data: Any, seed: int, *, augmented: bool) -> Inputs:
    """Return inputs that are tokenized once; batches contain texts of similar length, padded to the longest.

    Args:
        splits: Splits with the columns ``text`` (and ``text_pair``) and ``label``.
        processor: Tokenizer.
        data: ``data`` of the recipe.
        seed: Seed of the run.
        augmented: Whether training texts are augmented.
    """

    def encode(split: "Dataset", words: bool = False, training: bool = False) -> "Dataset":
        length, side = data.max_length, data.truncation_side
        return tokenize(split, processor, length, side, words=words, training=training, cut=True)

    texts, tokenized = {"train": splits.train}, {"train": encode(splits.train, augmented, training=True)}
    if splits.validation is not None:
        texts["validation"], tokenized["validation"] = splits.validation, encode(splits.validation)
    truncation = _truncation(texts, tokenized, processor, data)
    inputs = {split: rows.remove_columns(TRUNCATED) for split, rows in tokenized.items()}
    train: Any = inputs["train"]
    lengths = count_tokens(train) if data.group_by_length else None
    if augmented:
        noise = text_noise(processor, data.augment.mask, data.augment.drop)
        train = SeededExamples(AugmentedTexts(train, noise), seed)
    collate = DataCollatorWithPadding(processor)
    return Inputs(train, inputs.get("validation"), collate, lengths, {"": truncation})


def _truncation(
    texts: "Mapping[str, Dataset]", tokenized: "Mapping[str, Dataset]", processor: Any, data: Any
) -> Truncation:
    """Return the truncation statistics of the splits. Only the longest truncated example is tokenized again."""
    cut = {split: np.asarray(rows[TRUNCATED][:], dtype=bool) for split, rows in tokenized.items()}
    longest_texts: tuple[str, ...] = ()
    max_characters = 0
    for split, flags in cut.items():
        lengths = np.where(flags, text_lengths(texts[split]), 0)
        row = int(lengths.argmax()) if len(lengths) else 0
        if len(lengths) and lengths[row] > max_characters:
            example = texts[split][row]
            longest_texts = tuple(example[name] for name in text_columns(list(example)))
            max_characters = int(lengths[row])
    tokens = len(processor(*longest_texts, verbose=False)["input_ids"]) if longest_texts else 0
    return Truncation(
        *(cut, tokens, resolve_max_length(processor, data.max_length), data.truncation_side),
        limit=getattr(processor, _LIMIT, checkpoint_limit(processor)),
        pairs=len(text_columns(texts["train"].column_names)) > 1,
    )
