"""A tokenizer for the text form of histories, made from the training split: one token per kind of event and bucket."""

from collections.abc import Iterable, Sequence
from typing import Any

from tokenizers import Regex, normalizers, processors

from hf_finetune.tasks.events.buckets import bucket_edges, replacements
from hf_finetune.tasks.events.history import parse_history
from hf_finetune.tasks.word_level import END, START, load_tokenizer, word_level

__all__ = ["build_tokenizer"]


def build_tokenizer(histories: Iterable[str], buckets: int, max_length: int) -> Any:
    """Return a tokenizer whose vocabulary and buckets are those of the given histories.

    It replaces each number by the token of its bucket, such as ``amount=11.77`` by ``amount-3``, so that plain
    transformers reads the text form of a history. Unknown kinds of events become ``[UNK]``.

    Args:
        histories: Text forms of the training histories.
        buckets: Largest number of buckets of each quantity.
        max_length: Maximum number of tokens; the oldest events are left out.
    """
    kinds: dict[str, None] = {}
    numbers: dict[str, list[float]] = {"since": [], "gap": [], "amount": []}
    for text in histories:
        newer: float | None = None
        for event in parse_history(text):
            kinds[event.kind] = None
            if event.days is not None:
                numbers["since" if newer is None else "gap"].append(event.days - (newer or 0.0))
                newer = event.days
            if event.amount is not None and event.amount >= 0:
                numbers["amount"].append(event.amount)
    steps = [
        step for name, values in numbers.items() for step in replacements(name, bucket_edges(values, buckets))
    ]
    return _tokenizer([*sorted(kinds), *(token for _, token in steps)], steps, max_length)


def _tokenizer(words: Sequence[str], steps: Sequence[tuple[str, str]], max_length: int) -> Any:
    tokenizer = word_level(words)
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Replace(Regex(pattern), token) for pattern, token in steps]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B [SEP]",
        special_tokens=[(name, tokenizer.token_to_id(name)) for name in (START, END)],
    )
    return load_tokenizer(tokenizer, max_length)
