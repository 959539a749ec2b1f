"""Tokenizers with one token per word of the training split, and their special tokens."""

from collections.abc import Iterable
from typing import Any

from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

__all__ = [
    "END",
    "MASK",
    "PAD",
    "SPECIAL",
    "START",
    "UNKNOWN",
    "holds_special",
    "load_tokenizer",
    "word_level",
]

PAD, UNKNOWN, START, END, MASK = SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
"""Special tokens of a new tokenizer, which finds them within words, too."""
_NAMED = {"pad_token": PAD, "unk_token": UNKNOWN, "cls_token": START, "sep_token": END, "mask_token": MASK}


def holds_special(word: str) -> bool:
    """Return whether a word contains a special token.

    Args:
        word: A word of the data.
    """
    return "[" in word and any(token in word for token in SPECIAL)


def word_level(words: Iterable[str]) -> Any:
    """Return a tokenizer of the ``tokenizers`` library that splits at white space; other words become ``[UNK]``.

    Args:
        words: Vocabulary besides the special tokens, which come first.
    """
    vocabulary = {token: index for index, token in enumerate(dict.fromkeys([*SPECIAL, *words]))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return tokenizer


def load_tokenizer(tokenizer: Any, max_length: int, **settings: Any) -> Any:
    """Return a tokenizer of transformers with the special tokens.

    Args:
        tokenizer: Tokenizer from ``word_level``.
        max_length: Maximum number of tokens.
        settings: Further settings, such as ``truncation_side``.
    """
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=max_length, **_NAMED, **settings
    )
