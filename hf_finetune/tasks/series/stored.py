"""Stored pasts of series: their values, the length of a season, and covariates."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hf_finetune.errors import short_repr
from hf_finetune.tasks.examples import ExampleError

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = ["SeriesCheck", "feature_of_pasts", "read_past", "read_values", "stored_pasts"]

_KEYS = ("values", "season", "covariates")


def feature_of_pasts() -> dict[str, Any]:
    """Return the feature type of a past: ``values``, ``season`` (null if unknown), and ``covariates`` of each step."""
    from datasets import List, Value

    numbers = List(Value("float64"))
    return {"values": numbers, "season": Value("int64"), "covariates": List(numbers)}


def read_past(cell: Any) -> dict[str, Any]:
    """Return the past of a series as it is stored in data.

    Args:
        cell: A list of numbers; a mapping of ``values``, and perhaps ``season`` and ``covariates``; or the JSON text of
            one of them.

    Returns:
        A mapping with all three; ``season`` is None, and ``covariates`` empty, if there are none.

    Raises:
        ExampleError: If the cell contains no past.
    """
    if isinstance(cell, str):
        cell = _parsed(cell)
    if not isinstance(cell, Mapping):
        return {"values": read_values(cell), "season": None, "covariates": []}
    if unknown := [key for key in cell if key not in _KEYS]:
        raise ExampleError(f"one with {short_repr(unknown[0])}; known are {', '.join(_KEYS)}")
    values, season = read_values(cell.get("values")), cell.get("season")
    if season is not None and (isinstance(season, bool) or not isinstance(season, int) or season < 1):
        raise ExampleError(f"one with the season {short_repr(season)}, not a number of steps")
    return {
        "values": values,
        "season": season,
        "covariates": _covariates(cell.get("covariates"), len(values)),
    }


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise ExampleError(f"no list of numbers: {short_repr(text)}") from None


def read_values(cell: Any) -> list[float]:
    """Return a list of numbers.

    Args:
        cell: The list, or its JSON text.

    Raises:
        ExampleError: If it is none.
    """
    if isinstance(cell, str):
        cell = _parsed(cell)
    if not isinstance(cell, list | tuple) or not cell:
        empty = cell is None or cell in ([], ())
        raise ExampleError("empty" if empty else f"no list of numbers: {short_repr(cell)}")
    for value in cell:
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise ExampleError(f"one with {short_repr(value)} in place of a number")
    return [float(value) for value in cell]


def _covariates(cell: Any, steps: int) -> list[list[float]]:
    """Return the covariates of each step, of more steps than there are past values; empty if there are none."""
    if cell is None or cell == []:
        return []
    if not isinstance(cell, list | tuple):
        raise ExampleError(f"one with covariates that are no list: {short_repr(cell)}")
    rows = [read_values(row) for row in cell]
    if len({len(row) for row in rows}) > 1:
        raise ExampleError("one with covariates of different numbers in its steps")
    if len(rows) <= steps:
        raise ExampleError(f"one with covariates of {len(rows)} steps, not more than its {steps} values")
    return rows


def stored_pasts(dataset: "Dataset") -> "Dataset":
    """Return the pasts of a dataset in their stored form; one that cannot be read has no values, for ``SeriesCheck``.

    Args:
        dataset: Dataset with a column ``past_values``.
    """
    from datasets import Dataset, Features

    pasts = [_or_empty(cell) for batch in dataset.iter(batch_size=1000) for cell in batch["past_values"]]
    return Dataset.from_dict({"past_values": pasts}, features=Features({"past_values": feature_of_pasts()}))


def _or_empty(cell: Any) -> dict[str, Any]:
    try:
        return read_past(cell)
    except ExampleError:
        return {"values": [], "season": None, "covariates": []}


class SeriesCheck:
    """Check that each example has past values."""

    def faults(self, dataset: "Dataset", ids: Sequence[str]) -> list[str | None]:
        """Return the reason why each example cannot be used; None if it can.

        Args:
            dataset: Dataset with a column ``past_values``.
            ids: Name of each example.
        """
        return [None if past["values"] else "no list of numbers" for past in dataset["past_values"]]

    def notes(self) -> list[str]:
        """Return no messages."""
        return []
