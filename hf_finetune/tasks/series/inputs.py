"""Model inputs of series, which are kept in memory."""

from typing import TYPE_CHECKING, Any

import torch
from transformers import default_data_collator

from hf_finetune.tasks.examples import Inputs, Splits
from hf_finetune.tasks.series.processor import model_inputs

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = ["prepare_series"]

_ROWS_AT_ONCE = 1000


class _Windows(torch.utils.data.Dataset):
    """Model inputs and labels of a split.

    Args:
        rows: Dataset with the columns ``past_values``, and perhaps ``label``.
        processor: Configured preprocessor.
    """

    def __init__(self, rows: "Dataset", processor: Any):
        prepare = model_inputs(processor)
        batches = [prepare(batch["past_values"]) for batch in rows.iter(batch_size=_ROWS_AT_ONCE)]
        self.inputs = {name: torch.cat([batch[name] for batch in batches]) for name in batches[0]}
        if "label" in rows.column_names:
            self.inputs["labels"] = torch.tensor(rows["label"][:], dtype=torch.float32)

    def __len__(self) -> int:
        return len(self.inputs["past_values"])

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {name: values[index] for name, values in self.inputs.items()}


def prepare_series(splits: Splits, processor: Any) -> Inputs:
    """Return the inputs of both splits.

    Args:
        splits: Splits with the columns ``past_values`` and ``label``.
        processor: Configured preprocessor.
    """
    validation = splits.validation
    return Inputs(
        train=_Windows(splits.train, processor),
        validation=None if validation is None else _Windows(validation, processor),
        collate=default_data_collator,
    )
