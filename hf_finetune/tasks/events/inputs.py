"""Model inputs of histories, and the number of events that a model reads."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from transformers import DataCollatorWithPadding, PreTrainedConfig, PreTrainedModel

from hf_finetune.errors import InputError, Problem
from hf_finetune.tasks.events.new_model import tokens_of
from hf_finetune.tasks.examples import Inputs, Splits
from hf_finetune.tasks.text.tokenization import (
    TRUNCATED,
    checkpoint_limit,
    count_tokens,
    pad_right,
    position_limit,
    tokenize,
)
from hf_finetune.tasks.text.truncation import TruncationCounter

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = ["HistoryCounter", "ShortenedHistories", "configure_histories", "prepare_histories"]


@dataclass(frozen=True)
class ShortenedHistories:
    """Histories with more events than the model reads.

    Attributes:
        cut: Whether each example is shortened, bool [examples], by split.
        length: Maximum number of tokens, special tokens included.
    """

    cut: Mapping[str, np.ndarray]
    length: int

    def of_rows(self, rows: Mapping[str, Sequence[int]]) -> "ShortenedHistories":
        """Return the statistics of selected histories.

        Args:
            rows: Rows of the selected examples, by split.
        """
        return replace(
            self, cut={split: self.cut[split][list(rows[split])] for split in self.cut if split in rows}
        )

    def note(self) -> str | None:
        """Return a message on the shortened histories; None if there are none."""
        counts = [
            f"{int(cut.sum()):,} of {len(cut):,} in {split}" for split, cut in self.cut.items() if cut.any()
        ]
        if not counts:
            return None
        return (
            f"Histories of more than {self.length:,} tokens lose their oldest events: {', '.join(counts)}. "
            "A new model with a larger data.max_events reads them."
        )


class HistoryCounter(TruncationCounter):
    """Counter of histories that lose their oldest events during predictions."""

    def sentences(self) -> list[str]:
        """Return a one-sentence message if any history was shortened, else an empty list."""
        if not self.count:
            return []
        return [
            f"{self.count:,} of {self.total:,} histories lost their oldest events: the model reads at most "
            f"{self.length:,} tokens."
        ]


def configure_histories(
    tokenizer: Any, config: PreTrainedConfig, data: Any, skeleton: PreTrainedModel
) -> tuple[str, ...]:
    """Set the maximum number of tokens; the oldest events, which are last, are left out.

    Args:
        tokenizer: Tokenizer of the checkpoint, changed in place.
        config: Config of the model, changed in place.
        data: ``data`` of the recipe.
        skeleton: The model without weights.

    Returns:
        No messages.

    Raises:
        InputError: If the model reads fewer events than ``data.max_events``.
    """
    positions = position_limit(skeleton)
    limit = checkpoint_limit(tokenizer, positions)
    wanted = None if data.max_events is None else tokens_of(data.max_events)
    if wanted is not None and limit is not None and wanted > limit:
        rule = f"must be at most {max(1, (limit - tokens_of(0)) // (tokens_of(1) - tokens_of(0)))}"
        fix = f"The model reads {limit:,} tokens: 3 per event and 2 special ones."
        raise InputError(Problem("data.max_events", rule, str(data.max_events), fix))
    tokenizer.model_max_length = wanted or limit or tokenizer.model_max_length
    tokenizer.truncation_side = "right"
    pad_right(tokenizer, positions)
    if config.pad_token_id is None:
        config.pad_token_id = tokenizer.pad_token_id
    return ()


def prepare_histories(splits: Splits, processor: Any) -> Inputs:
    """Return inputs that are tokenized once; batches contain histories of similar length.

    Args:
        splits: Splits with the columns ``events`` and ``label``.
        processor: Configured tokenizer.
    """

    def encode(split: "Dataset", training: bool = False) -> "Dataset":
        return tokenize(split.rename_column("events", "text"), processor, training=training, cut=True)

    tokenized = {"train": encode(splits.train, training=True)}
    if splits.validation is not None:
        tokenized["validation"] = encode(splits.validation)
    cut = {split: np.asarray(rows[TRUNCATED][:], dtype=bool) for split, rows in tokenized.items()}
    inputs = {split: rows.remove_columns(TRUNCATED) for split, rows in tokenized.items()}
    shortened = ShortenedHistories(cut, processor.model_max_length)
    return Inputs(
        inputs["train"],
        inputs.get("validation"),
        DataCollatorWithPadding(processor),
        count_tokens(inputs["train"]),
        {"": shortened},
    )
