"""Tokenization of texts: token ids, truncated but not padded, and the limits of their number."""

import copy
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch
from pyarrow import compute
from torch import nn
from transformers import DataCollatorWithPadding, PreTrainedModel, PreTrainedTokenizerBase

from hf_finetune.errors import InputError, Problem
from hf_finetune.targets.labels import class_count, encode_batch
from hf_finetune.tasks.text.augment import WORDS
from hf_finetune.tasks.text.stored import text_columns
from hf_finetune.tasks.text.truncation import find_truncated

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = [
    "TRUNCATED",
    "checkpoint_limit",
    "count_tokens",
    "pad_right",
    "position_limit",
    "resolve_max_length",
    "tokenize",
    "tokenized_texts",
]

TRUNCATED = "is_cut"
"""Column of ``tokenize``: whether an example was truncated."""

# A tokenizer without a limit has a huge model_max_length (transformers' VERY_LARGE_INTEGER is 1e30).
_NO_LIMIT = 1_000_000
_LENGTH_WITHOUT_LIMIT = 512

# Names of absolute position embeddings in the architectures of transformers. Embeddings of relative distances
# (relative_attention_bias, distance_embedding, rel_embeddings) and layouts (x_position_embeddings) set no limit.
_POSITION_EMBEDDING = re.compile(
    r"(^|\.)((char_)?position_embeddings?|position_embeds?|positions_embed|embed_positions|pos_embeddings?|wpe)$"
)


def resolve_max_length(
    tokenizer: PreTrainedTokenizerBase, max_length: int | None, positions: int | None = None
) -> int:
    """Return the maximum number of tokens per example, special tokens included.

    Args:
        tokenizer: Tokenizer of the checkpoint.
        max_length: Requested maximum. None uses the checkpoint's limit, or 512 if it has none.
        positions: Number of positions of the model, from ``position_limit``; None for no limit.

    Raises:
        InputError: If ``max_length`` is above the checkpoint's limit, or leaves no token for the text.
    """
    min_length = tokenizer.num_special_tokens_to_add() + 1
    limit = checkpoint_limit(tokenizer, positions)
    if max_length is not None and max_length < min_length:
        rule = f"must be at least {min_length}: {min_length - 1} special tokens and one of the text"
        raise InputError(Problem("data.max_length", rule, str(max_length)))
    if limit is None:
        return _LENGTH_WITHOUT_LIMIT if max_length is None else max_length
    if max_length is not None and max_length > limit:
        rule = f"must be at most the {limit} tokens that the checkpoint accepts"
        raise InputError(Problem("data.max_length", rule, str(max_length)))
    return limit if max_length is None else max_length


def checkpoint_limit(tokenizer: PreTrainedTokenizerBase, positions: int | None = None) -> int | None:
    """Return the maximum number of tokens that a checkpoint accepts; None if it states no limit.

    Args:
        tokenizer: Tokenizer of the checkpoint.
        positions: Number of positions of the model, from ``position_limit``; None for no limit.
    """
    limits = [tokenizer.model_max_length] if tokenizer.model_max_length <= _NO_LIMIT else []
    limits += [] if positions is None else [positions]
    return min(limits) if limits else None


def pad_right(tokenizer: PreTrainedTokenizerBase, positions: int | None) -> bool:
    """Set a tokenizer, in place, to right padding if the model has absolute positions.

    Left padding would shift a text to other positions, so that predictions would depend on the batch. Right padding is
    exact: encoders mask it, and decoder heads use the last token that is not padding. Models with relative or rotary
    positions keep their side: the head of XLNet uses the last token, padding or not.

    Args:
        tokenizer: Tokenizer of the checkpoint.
        positions: Number of positions of the model, from ``position_limit``; None for no limit.

    Returns:
        Whether the padding side was changed.
    """
    if positions is None or tokenizer.padding_side == "right":
        return False
    tokenizer.padding_side = "right"
    tokenizer.init_kwargs["padding_side"] = "right"  # only keys of init_kwargs are saved
    return True


def count_tokens(tokenized: "Dataset") -> list[int]:
    """Return the number of tokens of each example in the output of ``tokenize``."""
    ids = tokenized.with_format("arrow")[:].column("input_ids")
    return list(compute.list_value_length(ids).to_pylist())


def tokenize(
    dataset: "Dataset",
    tokenizer: PreTrainedTokenizerBase,
    max_length: int | None = None,
    truncation_side: Literal["left", "right"] = "right",
    *,
    words: bool = False,
    training: bool = False,
    cut: bool = False,
) -> "Dataset":
    """Tokenize one text or pair of texts per example, without padding, which the collate function adds per batch.

    A pair that is too long loses tokens of its longer text first.

    Args:
        dataset: Dataset with the column ``text``, and optionally ``text_pair`` and ``label``.
        tokenizer: Tokenizer of the checkpoint, which is not changed.
        max_length: Tokens per example, special tokens included. None uses the checkpoint's limit, or 512 without one.
        truncation_side: Side on which tokens are removed.
        words: Whether to add the column ``words``, the word number of each token, -1 for special tokens. A tokenizer
            that is not fast does not report words: each token is then a word.
        training: Whether ``labels`` include the weights and probabilities for the loss.
        cut: Whether to add the column ``TRUNCATED``.

    Returns:
        Output of the tokenizer (``input_ids``, ``attention_mask``, ...) and ``labels``. It is in memory, so that a run
        leaves no files in the cache of ``datasets`` or next to a saved dataset.

    Raises:
        InputError: If ``max_length`` is above the checkpoint's limit, or leaves no token for the text.
    """
    length = resolve_max_length(tokenizer, max_length)
    truncating_tokenizer = copy.deepcopy(tokenizer)
    truncating_tokenizer.truncation_side = truncation_side
    classes = class_count(dataset.features)

    def encode(batch: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
        texts = [batch[name] for name in text_columns(list(batch))]
        encoding = truncating_tokenizer(*texts, truncation=True, max_length=length, padding=False)
        encoded = dict(encoding)
        if words:
            encoded[WORDS] = [
                _word_numbers(encoding, index, truncating_tokenizer, ids)
                for index, ids in enumerate(encoded["input_ids"])
            ]
        if cut:
            encoded[TRUNCATED] = find_truncated(encoding, truncating_tokenizer, texts, length)
        if "label" in batch:
            encoded["labels"] = encode_batch(batch, classes, training=training)
        return encoded

    return dataset.map(encode, batched=True, remove_columns=dataset.column_names, keep_in_memory=True)


def tokenized_texts(
    tokenizer: PreTrainedTokenizerBase, names: Sequence[str]
) -> Callable[[Sequence[Any]], dict[str, torch.Tensor]]:
    """Return a function from a batch of examples to token ids, padded to the longest example.

    An example is a text, or a dictionary with ``text`` and perhaps ``text_pair``.

    Args:
        tokenizer: Tokenizer of the model.
        names: Names of the model inputs, in order.
    """
    length = resolve_max_length(tokenizer, None)
    collate = DataCollatorWithPadding(tokenizer, padding=tokenizer.pad_token_id is not None)

    def prepare(texts: Sequence[Any]) -> dict[str, torch.Tensor]:
        columns = [text if isinstance(text, Mapping) else {"text": text} for text in texts]
        batch = collate([tokenizer(**column, truncation=True, max_length=length) for column in columns])
        return {name: batch[name] for name in names if name in batch}

    return prepare


def _word_numbers(
    encoding: Any, index: int, tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]
) -> list[int]:
    """Return the word number of each token of an example; a pair's second text continues the numbers of the first."""
    if tokenizer.is_fast:
        keys = list(zip(encoding.sequence_ids(index), encoding.word_ids(index), strict=True))
    else:
        special = tokenizer.get_special_tokens_mask(ids, already_has_special_tokens=True)
        keys = [(0, None if is_special else place) for place, is_special in enumerate(special)]
    numbers: dict[Any, int] = {}
    return [-1 if key[1] is None else numbers.setdefault(key, len(numbers)) for key in keys]


def position_limit(model: PreTrainedModel) -> int | None:
    """Return the largest number of tokens that a model has positions for, including special tokens; None if unlimited.

    RoBERTa and similar architectures count positions from ``padding_idx + 1``, BART and OPT from an ``offset``; the
    rows before these are not positions of tokens. Models with relative or rotary positions have no such table.

    Args:
        model: Model on any device, including the meta device.
    """
    limits = [
        table.weight.shape[0] - _first_position(table)
        for name, table in model.named_modules()
        if _POSITION_EMBEDDING.search(name) and isinstance(getattr(table, "weight", None), torch.Tensor)
    ]
    if not limits:
        return None
    configured_limit = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    # Nystroemformer, YOSO and MRA have two more rows than positions
    return min(
        [*limits, configured_limit] if isinstance(configured_limit, int) and configured_limit > 0 else limits
    )


def _first_position(table: nn.Module) -> int:
    offset, padding = getattr(table, "offset", None), getattr(table, "padding_idx", None)
    if isinstance(offset, int):
        return offset
    return padding + 1 if isinstance(padding, int) else 0
