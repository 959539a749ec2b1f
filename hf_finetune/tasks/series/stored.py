"""Stored pasts of series: lists of numbers, and the check that each is one."""

import json
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hf_finetune.errors import short_repr
from hf_finetune.tasks.examples import ExampleError

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = ["SeriesCheck", "numbers_of", "read_values"]


def read_values(cell: Any) -> list[float]:
    """Return the values of a series as they are stored in data.

    Args:
        cell: A list of numbers, or a JSON list as text.

    Raises:
        ExampleError: If the cell contains no such list.
    """
    if isinstance(cell, str):
        try:
            cell = json.loads(cell)
        except (ValueError, RecursionError):
            raise ExampleError(f"no list of numbers: {short_repr(cell)}") from None
    if not isinstance(cell, list | tuple) or not cell:
        empty = cell is None or cell in ([], ())
        raise ExampleError("empty" if empty else f"no list of numbers: {short_repr(cell)}")
    for value in cell:
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise ExampleError(f"a list with {short_repr(value)} in place of a number")
    return [float(value) for value in cell]


def numbers_of(dataset: "Dataset") -> "Dataset":
    """Return the pasts of a dataset as lists of numbers; one that cannot be read is empty, for ``SeriesCheck``.

    Args:
        dataset: Dataset with a column ``past_values``, and perhaps ``season``.
    """
    from datasets import Dataset, Features, List, Value, concatenate_datasets

    values = [_or_empty(cell) for batch in dataset.iter(batch_size=1000) for cell in batch["past_values"]]
    features = Features({"past_values": List(Value("float64"))})
    pasts = Dataset.from_dict({"past_values": values}, features=features)
    if "season" not in dataset.column_names:
        return pasts
    seasons = Dataset.from_dict(
        {"season": [int(season) for season in dataset["season"]]}, features=Features({"season": Value("int64")})
    )
    return concatenate_datasets([pasts, seasons], axis=1)


def _or_empty(cell: Any) -> list[float]:
    try:
        return read_values(cell)
    except ExampleError:
        return []


class SeriesCheck:
    """Check that each example is a list of numbers."""

    def faults(self, dataset: "Dataset", ids: Sequence[str]) -> list[str | None]:
        """Return the reason why each example cannot be used; None if it can.

        Args:
            dataset: Dataset with a column ``past_values``.
            ids: Name of each example.
        """
        return [None if values else "no list of numbers" for values in dataset["past_values"]]

    def notes(self) -> list[str]:
        """Return no messages."""
        return []
