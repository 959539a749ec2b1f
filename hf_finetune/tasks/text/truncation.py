"""Statistics of texts that are truncated because they are longer than the model's maximum length."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from hf_finetune.tasks.examples import Remarks

__all__ = ["Truncation", "TruncationCounter", "find_truncated"]


@dataclass(frozen=True)
class Truncation:
    """Truncated examples in the splits of a task.

    Attributes:
        cut: Whether each example is truncated, bool [examples], by split.
        longest: Number of tokens of the truncated example with the most characters; 0 if none is truncated.
        length: Maximum number of tokens of an example, special tokens included.
        side: Side on which tokens are removed.
        limit: Maximum number of tokens that the checkpoint accepts; None if it states no limit.
        pairs: Whether examples are pairs of texts.
    """

    cut: Mapping[str, np.ndarray]
    longest: int
    length: int
    side: str
    limit: int | None
    pairs: bool = False

    def of_rows(self, rows: Mapping[str, Sequence[int]]) -> "Truncation":
        """Return the statistics of selected examples.

        Args:
            rows: Rows of the selected examples, by split.
        """
        cut = {split: self.cut[split][list(rows[split])] for split in self.cut if split in rows}
        return replace(self, cut=cut)

    def note(self) -> str | None:
        """Return a message on the truncated examples with a suggested fix; None if there are none."""
        counts = [
            f"{int(cut.sum()):,} of {len(cut):,} in {split} ({100 * cut.mean():.3g} %)"
            for split, cut in self.cut.items()
            if cut.any()
        ]
        if not counts:
            return None
        examples = "Pairs of texts" if self.pairs else "Texts"
        return (
            f"{examples} of more than {self.length:,} tokens are truncated on the {self.side}: "
            f"{', '.join(counts)}; the longest has {self.longest:,} tokens. {self._repair()}"
        )

    def _repair(self) -> str:
        opposite, part = ("left", "end") if self.side == "right" else ("right", "beginning")
        side_hint = f"data.truncation_side: {opposite} if the {part} of a text matters more"
        if self.limit is None:
            return f"Increase data.max_length, or {side_hint}."
        if self.length < self.limit:
            return f"Increase data.max_length, at most to the checkpoint's {self.limit:,}, or {side_hint}."
        return f"The checkpoint accepts no more tokens; set {side_hint}."


class TruncationCounter(Remarks):
    """Counter of texts that are truncated during the predictions of a trained model.

    Attributes:
        count: Number of truncated examples.
        total: Number of all examples.
        length: Maximum number of tokens of an example.
        side: Side on which tokens are removed.
    """

    def __init__(self) -> None:
        self.count = self.total = self.length = 0
        self.side = "right"

    def add_batch(self, cut: Sequence[bool], tokenizer: PreTrainedTokenizerBase) -> None:
        """Add the counts of a batch.

        Args:
            cut: Whether each example was truncated.
            tokenizer: Tokenizer of the model, which defines the maximum length and the truncation side.
        """
        self.count += sum(cut)
        self.total += len(cut)
        self.length, self.side = tokenizer.model_max_length, tokenizer.truncation_side

    def sentences(self) -> list[str]:
        """Return a one-sentence message if any text was truncated, else an empty list."""
        if not self.count:
            return []
        verb = "was" if self.count == 1 else "were"
        return [
            f"{self.count:,} of {self.total:,} texts {verb} truncated on the {self.side}: the model accepts "
            f"at most {self.length:,} tokens."
        ]


def find_truncated(
    encoded: Any, tokenizer: PreTrainedTokenizerBase, texts: Sequence[Sequence[str]], length: int
) -> list[bool]:
    """Return whether each example of a batch was truncated by the tokenizer.

    Args:
        encoded: Output of the tokenizer for the batch, with truncation.
        tokenizer: Tokenizer of the model.
        texts: One sequence with the texts of the batch, and for pairs another one with the second texts.
        length: Maximum number of tokens of an example.
    """
    if getattr(encoded, "encodings", None):
        return [bool(encoding.overflowing) for encoding in encoded.encodings]
    # A slow (Python) tokenizer does not report truncation: only examples of the full length may have been longer.
    rows = list(zip(*texts, strict=True))
    full = [int(np.sum(mask)) >= length for mask in encoded["attention_mask"]]
    return [
        is_full and len(tokenizer(*row, verbose=False)["input_ids"]) > length
        for row, is_full in zip(rows, full, strict=True)
    ]
