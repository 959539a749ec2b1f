"""Stored pasts of series: lists of numbers, and the check that each is one."""

import json
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hf_finetune.errors import short_repr
from hf_finetune.tasks.examples import ExampleError

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = ["SeriesCheck", "numbers_of", "read_covariates", "read_values"]


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


def read_covariates(cell: Any, steps: int) -> list[list[float]] | None:
    """Return numbers that are known in advance, as they are stored in data.

    Args:
        cell: A list with a list of numbers for each step, or its JSON text; None without any.
        steps: Number of past values; the list is longer by the steps to forecast.

    Raises:
        ExampleError: If the cell contains no such list.
    """
    if cell is None or cell == "":
        return None
    if isinstance(cell, str):
        try:
            cell = json.loads(cell)
        except (ValueError, RecursionError):
            raise ExampleError(f"covariates that are no list: {short_repr(cell)}") from None
    if not isinstance(cell, list | tuple) or not cell:
        raise ExampleError(f"covariates that are no list: {short_repr(cell)}")
    rows = [read_values(row) for row in cell]
    if len({len(row) for row in rows}) > 1:
        raise ExampleError("covariates of different numbers in its steps")
    if len(rows) <= steps:
        raise ExampleError(f"covariates of {len(rows)} steps, not more than the {steps} past values")
    return rows


def numbers_of(dataset: "Dataset") -> "Dataset":
    """Return the pasts of a dataset as lists of numbers; one that cannot be read is empty, for ``SeriesCheck``.

    Args:
        dataset: Dataset with a column ``past_values``, and perhaps ``season`` and ``covariates``.
    """
    from datasets import Dataset, Features, List, Value

    types = {"past_values": List(Value("float64"))}
    rows: dict[str, list[Any]] = {
        "past_values": [
            _or_empty(cell) for batch in dataset.iter(batch_size=1000) for cell in batch["past_values"]
        ]
    }
    if "season" in dataset.column_names:
        types["season"], rows["season"] = Value("int64"), [int(season) for season in dataset["season"]]
    if "covariates" in dataset.column_names:
        types["covariates"] = List(List(Value("float64")))
        rows["covariates"] = [
            _known(cell, len(past))
            for cell, past in zip(dataset["covariates"], rows["past_values"], strict=True)
        ]
    return Dataset.from_dict(rows, features=Features(types))


def _known(cell: Any, steps: int) -> list[list[float]]:
    try:
        return read_covariates(cell, steps) or []
    except ExampleError:
        return []


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
        faults = [None if values else "no list of numbers" for values in dataset["past_values"]]
        if "covariates" in dataset.column_names:
            for row, known in enumerate(dataset["covariates"]):
                faults[row] = faults[row] or (
                    None if known else "no covariates of more steps than past values"
                )
        return faults

    def notes(self) -> list[str]:
        """Return no messages."""
        return []
