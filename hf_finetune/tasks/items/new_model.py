"""A small BERT with random weights for histories of items, and its tokenizer with one token per item."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import transformers
from transformers import BertConfig, BertForMaskedLM

from hf_finetune.tasks.items.model import FLOOR
from hf_finetune.tasks.word_level import SPECIAL, load_tokenizer, word_level

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = ["item_vocabulary", "save_new_model"]

_HEAD_WIDTH = 16
_DROPOUT = 0.2
"""Dropout probability, larger than BERT's 0.1: catalogues are small data (Sun et al. 2019, section 4.3)."""


def item_vocabulary(train: "Dataset") -> list[str]:
    """Return the items of the histories and labels of a training split, sorted.

    Args:
        train: Training split with the columns ``items`` and ``label``.
    """
    names = train.features["label"].names
    items = {word for text in train["items"] for word in text.split()}
    return sorted(items | {names[label] for label in train["label"]})


def save_new_model(
    folder: Path,
    items: Iterable[str],
    label_names: Sequence[str],
    *,
    layers: int,
    hidden: int,
    max_items: int,
    seed: int,
) -> None:
    """Write a checkpoint with random weights, which transformers loads as a masked language model.

    Special tokens are never predicted: their biases are so low that their probabilities are 0.

    Args:
        folder: Folder to write.
        items: Vocabulary: the items of the training split.
        label_names: Class names of the data.
        layers: Number of transformer layers.
        hidden: Size of the hidden states, a multiple of 16: each attention head has a width of 16.
        max_items: Maximum number of items of a history.
        seed: Seed of the weights.
    """
    tokenizer = load_tokenizer(word_level(items), max_items + 1, truncation_side="left")
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=hidden // _HEAD_WIDTH,
        intermediate_size=4 * hidden,
        max_position_embeddings=max_items + 1,
        type_vocab_size=1,
        pad_token_id=tokenizer.pad_token_id,
        hidden_dropout_prob=_DROPOUT,
        attention_probs_dropout_prob=_DROPOUT,
        id2label=dict(enumerate(label_names)),
        label2id={name: index for index, name in enumerate(label_names)},
    )
    transformers.set_seed(seed)
    model = BertForMaskedLM(config)
    with torch.no_grad():
        model.get_output_embeddings().bias[tokenizer.convert_tokens_to_ids(list(SPECIAL))] = FLOOR
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
