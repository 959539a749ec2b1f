"""Columns of a table with one row per event, by their usual names and values, and a date that divides it."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from hf_finetune.errors import InputError
from hf_finetune.fields.times import SECONDS_PER_DAY
from hf_finetune.tasks.event_rows import CUSTOMER_AND_TIME, format_date, read_times, usual_columns

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = ["guess_log"]

_NAMES: Mapping[str, Sequence[str]] = {
    **CUSTOMER_AND_TIME,
    "item": (
        "item",
        "item_id",
        "product",
        "product_id",
        "sku",
        "article",
        "dish",
        "movie",
        "movie_id",
        "film",
    ),
}
_ROWS_PER_VALUE = 2
"""Smallest mean number of rows of a customer, and of an item."""
_TRAINING = 0.8
"""Fraction of the events before the date from which on items test the model."""


def guess_log(dataset: "Dataset") -> dict[str, Any]:
    """Return the fields of ``data`` for a table with one row per event.

    All other columns must be numbers, such as prices: a text or a class would belong to another task.

    Args:
        dataset: Table as loaded.

    Returns:
        ``columns``, and the date in ``split``; empty if the table has no such rows.
    """
    columns = usual_columns(dataset.column_names, _NAMES)
    others = [name for name in dataset.column_names if name not in columns.values()]
    if set(columns) != set(_NAMES) or not all(_are_numbers(dataset[name][:]) for name in others):
        return {}
    if any(
        len(set(dataset[columns[role]][:])) * _ROWS_PER_VALUE > len(dataset) for role in ("customer", "item")
    ):
        return {}
    try:
        times = read_times(dataset[columns["time"]][:])
    except InputError:
        return {}
    date = np.floor(np.quantile(times, _TRAINING) / SECONDS_PER_DAY) * SECONDS_PER_DAY
    return {"columns": columns, "split": {"time": format_date(float(date)), "validation": 0.15}}


def _are_numbers(cells: Sequence[Any]) -> bool:
    try:
        np.asarray([cell for cell in cells if cell is not None], dtype=np.float64)
    except (TypeError, ValueError):
        return False
    return True
