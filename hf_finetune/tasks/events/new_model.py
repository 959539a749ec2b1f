"""A small BERT with random weights for histories of events, and its tokenizer."""

from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING

import transformers
from transformers import BertConfig, BertModel

from hf_finetune.tasks.events.tokenizer import build_tokenizer

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = ["MAX_TOKENS", "TOKENS_PER_EVENT", "save_new_model", "tokens_of"]

TOKENS_PER_EVENT = 3
"""A gap, a kind and an amount."""
MAX_TOKENS = 512
"""Largest number of positions of a new model whose data sets no maximum."""
_SPECIAL_TOKENS = 2
_POSITIONS_STEP = 64
_HEAD_WIDTH = 16


def tokens_of(events: int) -> int:
    """Return the largest number of tokens of a history, special tokens included.

    Args:
        events: Number of events.
    """
    return TOKENS_PER_EVENT * events + _SPECIAL_TOKENS


def save_new_model(
    folder: Path,
    train: "Dataset",
    *,
    layers: int,
    hidden: int,
    buckets: int,
    max_events: int | None,
    seed: int,
) -> None:
    """Write a checkpoint with random weights, whose tokenizer is made from the training split.

    Args:
        folder: Folder to write.
        train: Training split with a column ``events``.
        layers: Number of transformer layers.
        hidden: Size of the hidden states, a multiple of 16: each attention head has a width of 16.
        buckets: Largest number of buckets of gaps and of amounts.
        max_events: Maximum number of events of a history; None is that of the longest training history, up to
            ``MAX_TOKENS`` tokens.
        seed: Seed of the weights.
    """
    histories = train["events"]
    if max_events is not None:
        positions = tokens_of(max_events)
    else:
        longest = max(len(text.split()) for text in histories) + _SPECIAL_TOKENS
        positions = min(MAX_TOKENS, _POSITIONS_STEP * ceil(longest / _POSITIONS_STEP))
    tokenizer = build_tokenizer(histories, buckets, positions)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=hidden // _HEAD_WIDTH,
        intermediate_size=4 * hidden,
        max_position_embeddings=positions,
        type_vocab_size=1,
        pad_token_id=tokenizer.pad_token_id,
    )
    transformers.set_seed(seed)
    BertModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
