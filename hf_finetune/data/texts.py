"""Texts as a model takes them: token ids, cut to length, not yet padded."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from datasets import Dataset
from pyarrow import compute
from transformers import PreTrainedTokenizerBase

from hf_finetune.data.labels import class_count, encode_batch
from hf_finetune.data.text_augment import WORDS
from hf_finetune.data.truncation import cut_examples
from hf_finetune.errors import InputError, Problem

__all__ = ["CUT", "checkpoint_limit", "count_tokens", "pad_right", "resolve_max_length", "tokenize"]

CUT = "is_cut"
"""Column of ``tokenize``: whether an example lost tokens."""

# A tokenizer that knows no limit says so with a huge number (transformers' VERY_LARGE_INTEGER is 1e30).
_NO_LIMIT = 1_000_000
_LENGTH_WITHOUT_LIMIT = 512


def resolve_max_length(
    tokenizer: PreTrainedTokenizerBase, max_length: int | None, positions: int | None = None
) -> int:
    """Return how many tokens an example may have.

    Args:
        tokenizer: The checkpoint's.
        max_length: Tokens per example, special tokens included. None is the checkpoint's limit, else 512.
        positions: Tokens for which the model has positions, from ``position_limit``; None for no limit.

    Raises:
        InputError: If ``max_length`` is above the checkpoint's limit, or leaves no token for a text.
    """
    fewest = tokenizer.num_special_tokens_to_add() + 1
    limit = checkpoint_limit(tokenizer, positions)
    if max_length is not None and max_length < fewest:
        rule = f"must be at least {fewest}: {fewest - 1} special tokens and one of the text"
        raise InputError(Problem("data.max_length", rule, str(max_length)))
    if limit is None:
        return _LENGTH_WITHOUT_LIMIT if max_length is None else max_length
    if max_length is not None and max_length > limit:
        rule = f"must be at most the {limit} tokens that the checkpoint takes"
        raise InputError(Problem("data.max_length", rule, str(max_length)))
    return limit if max_length is None else max_length


def checkpoint_limit(tokenizer: PreTrainedTokenizerBase, positions: int | None = None) -> int | None:
    """Return how many tokens a checkpoint takes at most; None if it states no limit.

    Args:
        tokenizer: The checkpoint's.
        positions: Tokens for which the model has positions, from ``position_limit``; None for no limit.
    """
    limits = [tokenizer.model_max_length] if tokenizer.model_max_length <= _NO_LIMIT else []
    limits += [] if positions is None else [positions]
    return min(limits) if limits else None


def pad_right(tokenizer: PreTrainedTokenizerBase, positions: int | None) -> bool:
    """Let a tokenizer pad at the right, in place, where the model has absolute positions.

    Padding at the left would move a text to other positions, so that its answer would depend on the batch. At the right
    it is exact: encoders mask it, and the heads of decoders take the last token that is no padding. Models of relative
    or rotary positions keep their side: the head of XLNet takes the last token of all.

    Args:
        tokenizer: The checkpoint's.
        positions: Tokens for which the model has positions, from ``position_limit``; None for no limit.

    Returns:
        Whether the side was changed.
    """
    if positions is None or tokenizer.padding_side == "right":
        return False
    tokenizer.padding_side = "right"
    tokenizer.init_kwargs["padding_side"] = "right"  # only what stands here is saved
    return True


def count_tokens(tokenized: Dataset) -> list[int]:
    """Count the tokens of each example of what ``tokenize`` gave."""
    ids = tokenized.with_format("arrow")[:].column("input_ids")
    return list(compute.list_value_length(ids).to_pylist())


def tokenize(
    dataset: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    max_length: int | None = None,
    truncation_side: Literal["left", "right"] = "right",
    *,
    words: bool = False,
    training: bool = False,
    cut: bool = False,
) -> Dataset:
    """Tokenise one text or a pair per example. Padding is left to the collator, which sees the whole batch.

    A pair that is too long loses tokens of its longer text first.

    Args:
        dataset: Columns ``text``, perhaps ``text_pair``, and perhaps ``label``.
        tokenizer: The checkpoint's. It is not changed.
        max_length: Tokens per example, special tokens included. None is the checkpoint's limit, else 512.
        truncation_side: The end at which tokens are dropped.
        words: Whether to number the word of each token, in the column ``words``; -1 for special tokens. Each token is
            a word for a tokenizer that does not tell.
        training: Whether labels carry the weights and probabilities that the loss takes.
        cut: Whether to add the column ``CUT``.

    Returns:
        What the tokenizer gives (``input_ids``, ``attention_mask``, ...) and ``labels``, held in memory:
        a run leaves nothing in the cache of ``datasets`` or beside a saved dataset.

    Raises:
        InputError: If ``max_length`` is above the checkpoint's limit.
    """
    length = resolve_max_length(tokenizer, max_length)
    cutter = copy.deepcopy(tokenizer)
    cutter.truncation_side = truncation_side
    classes = class_count(dataset.features)

    def encode(batch: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
        texts = [batch[name] for name in ("text", "text_pair") if name in batch]
        found = cutter(*texts, truncation=True, max_length=length, padding=False)
        encoded = dict(found)
        if words:
            encoded[WORDS] = [
                _words(found, index, cutter, ids) for index, ids in enumerate(encoded["input_ids"])
            ]
        if cut:
            encoded[CUT] = cut_examples(found, cutter, texts, length)
        if "label" in batch:
            encoded["labels"] = encode_batch(batch, classes, training=training)
        return encoded

    return dataset.map(encode, batched=True, remove_columns=dataset.column_names, keep_in_memory=True)


def _words(found: Any, index: int, tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> list[int]:
    """Number the words of an example in their order, those of a pair's second text behind those of the first."""
    if tokenizer.is_fast:
        keys = list(zip(found.sequence_ids(index), found.word_ids(index), strict=True))
    else:
        special = tokenizer.get_special_tokens_mask(ids, already_has_special_tokens=True)
        keys = [(0, None if is_special else place) for place, is_special in enumerate(special)]
    numbers: dict[Any, int] = {}
    return [-1 if key[1] is None else numbers.setdefault(key, len(numbers)) for key in keys]
