"""How many texts are longer than a model takes, and are cut."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

__all__ = ["CutTexts", "Truncation", "cut_examples"]


@dataclass(frozen=True)
class Truncation:
    """Which examples of the splits of a task are cut, and how.

    Attributes:
        cut: Whether each example is cut, by split.
        longest: Tokens of the cut example with the most characters; 0 if none is cut.
        length: Tokens that an example may have, special tokens included.
        side: The end at which tokens are dropped.
        limit: Tokens that the checkpoint takes at most; None if it states no limit.
        pairs: Whether examples are pairs of texts.
    """

    cut: Mapping[str, np.ndarray]
    longest: int
    length: int
    side: str
    limit: int | None
    pairs: bool = False

    def of_rows(self, rows: Mapping[str, Sequence[int]]) -> "Truncation":
        """Return the same for some of the examples.

        Args:
            rows: By split, the rows of its examples.
        """
        cut = {split: self.cut[split][list(rows[split])] for split in self.cut if split in rows}
        return replace(self, cut=cut)

    def note(self) -> str | None:
        """Return a sentence on the examples that are cut, and the repair; None if there are none."""
        counts = [
            f"{int(cut.sum()):,} of {len(cut):,} in {split} ({100 * cut.mean():.3g} %)"
            for split, cut in self.cut.items()
            if cut.any()
        ]
        if not counts:
            return None
        examples = "Pairs of texts" if self.pairs else "Texts"
        return (
            f"{examples} of more than {self.length:,} tokens are cut at the {self.side}: {', '.join(counts)}; the "
            f"longest has {self.longest:,} tokens. {self._repair()}"
        )

    def _repair(self) -> str:
        other, part = ("left", "end") if self.side == "right" else ("right", "beginning")
        turn = f"data.truncation_side: {other} where the {part} of a text matters more"
        if self.limit is None:
            return f"Set data.max_length to more, or {turn}."
        if self.length < self.limit:
            return f"Set data.max_length to more, at most the checkpoint's {self.limit:,}, or {turn}."
        return f"The checkpoint takes no more tokens; set {turn}."


class CutTexts:
    """Counts the texts that are cut while a finished model predicts.

    Attributes:
        count: Examples that were cut.
        total: All examples.
        length: Tokens that an example may have.
        side: The end at which tokens are dropped.
    """

    def __init__(self) -> None:
        self.count = self.total = self.length = 0
        self.side = "right"

    def add(self, cut: Sequence[bool], tokenizer: PreTrainedTokenizerBase) -> None:
        """Take a batch into account.

        Args:
            cut: Whether each example was cut.
            tokenizer: Of the model, which knows its length and side.
        """
        self.count += sum(cut)
        self.total += len(cut)
        self.length, self.side = tokenizer.model_max_length, tokenizer.truncation_side

    def sentences(self) -> list[str]:
        """Return a sentence if there is any such text."""
        if not self.count:
            return []
        verb = "was" if self.count == 1 else "were"
        return [
            f"{self.count:,} of {self.total:,} texts {verb} cut at the {self.side}: the model takes {self.length:,} "
            "tokens."
        ]


def cut_examples(
    encoded: Any, tokenizer: PreTrainedTokenizerBase, texts: Sequence[Sequence[str]], length: int
) -> list[bool]:
    """Return whether each example of a batch was cut when it was tokenized.

    Args:
        encoded: What the tokenizer made of the batch, with truncation.
        tokenizer: The tokenizer.
        texts: The texts of the batch, and perhaps the second texts of its pairs.
        length: Tokens that an example may have.
    """
    if getattr(encoded, "encodings", None):
        return [bool(encoding.overflowing) for encoding in encoded.encodings]
    # A tokenizer in Python does not tell what it cut: only examples of just this length may have been longer.
    rows = list(zip(*texts, strict=True))
    full = [int(np.sum(mask)) >= length for mask in encoded["attention_mask"]]
    return [
        is_full and len(tokenizer(*row, verbose=False)["input_ids"]) > length
        for row, is_full in zip(rows, full, strict=True)
    ]
