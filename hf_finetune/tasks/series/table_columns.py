"""Columns of a table with one row per observation, and whether a table is one."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hf_finetune.errors import InputError
from hf_finetune.tasks.series.grid import is_step, moment_of
from hf_finetune.tasks.series.observations import read_observations

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = ["columns_of", "infer_columns", "looks_like_series", "named_columns"]

_USUAL_NAMES = {
    "series": (
        "series",
        "unique_id",
        "series_id",
        "item_id",
        "store",
        "shop",
        "branch",
        "product",
        "sku",
        "id",
    ),
    "time": ("time", "date", "ds", "datetime", "timestamp", "month", "week", "day", "period", "year"),
    "value": (
        "value",
        "y",
        "target",
        "sales",
        "demand",
        "quantity",
        "amount",
        "revenue",
        "visitors",
        "count",
    ),
}
"""Usual names of the columns of a table with one row per observation, the most usual one first."""
_CLASS_NAMES = ("label", "labels", "class", "category", "sentiment", "outcome", "text")
"""Columns of tables whose rows are examples of other tasks."""
_CLEAR_NAMES = ("sales", "demand", "quantity", "revenue", "visitors")
"""Names of values that leave no doubt that a table with other columns, too, is one of series."""
_REQUIRED = ("time", "value")
_ROWS_LOOKED_AT, _FEWEST_VALUES, _MOST_WORDS = 1000, 10, 3
"""To recognize a table: rows that are read for texts, mean number of values of a series, and words of a name."""


def named_columns(names: Sequence[str], columns: Mapping[str, Any]) -> dict[str, str]:
    """Return the columns of a table with one row per observation: named ones, or those of a usual name.

    Args:
        names: Columns of the table.
        columns: Column names by role, as in a recipe.

    Returns:
        Columns by role; empty if the table has no such rows.
    """
    lower = {name.lower(): name for name in reversed(names)}
    found: dict[str, str] = {}
    for role, usual in _USUAL_NAMES.items():
        left = [lower[each] for each in usual if each in lower and lower[each] not in found.values()]
        if name := columns.get(role) or next(iter(left), None):
            found[role] = name
    return found if all(role in found for role in _REQUIRED) else {}


def columns_of(dataset: "Dataset", columns: Mapping[str, Any]) -> dict[str, str]:
    """Return the columns of a table as ``named_columns`` does, without a guessed series column that numbers the rows.

    Args:
        dataset: Table as loaded.
        columns: Column names by role, as in a recipe.
    """
    found = named_columns(dataset.column_names, columns)
    guessed = found.get("series") if columns.get("series") is None else None
    if guessed is not None and len(set(dataset[guessed][:])) == len(dataset):
        del found["series"]
    return found


def looks_like_series(dataset: "Dataset") -> bool:
    """Return whether a table has one row per observation: columns of usual names, and a regular grid of times.

    Args:
        dataset: Table as loaded.
    """
    columns = columns_of(dataset, {})
    if not columns:
        return bool(infer_columns(dataset))
    others = [name for name in dataset.column_names if name not in columns.values()]
    head = dataset.select(range(min(len(dataset), _ROWS_LOOKED_AT)))
    if any(name.lower() in _CLASS_NAMES or _is_prose(head[name][:]) for name in others):
        return False
    if others and columns["value"].lower() not in _CLEAR_NAMES:
        return False  # a table of several numbers may as well be one of regression
    return _is_regular(dataset, columns)


def infer_columns(dataset: "Dataset") -> dict[str, str]:
    """Return the columns of a table of times, numbers and perhaps names of series, whose names are not the usual ones.

    Args:
        dataset: Table as loaded.

    Returns:
        Columns by role; empty if the table has other columns, or no regular times.
    """
    names = dataset.column_names
    if named_columns(names, {}) or not len(_REQUIRED) <= len(names) <= len(_USUAL_NAMES):
        return {}
    head = dataset.select(range(min(len(dataset), _ROWS_LOOKED_AT)))
    times = [name for name in names if _all(head[name][:], _is_date)]
    numbers = [
        name
        for name in names
        if name not in times
        and name.lower() not in (*_USUAL_NAMES["series"], *_CLASS_NAMES)
        and _all(head[name][:], _is_number)
    ]
    if (len(times), len(numbers)) != (1, 1):
        return {}
    columns = {"time": times[0], "value": numbers[0]}
    if rest := [name for name in names if name not in columns.values()]:
        columns["series"] = rest[0]
    return columns if _is_regular(dataset, columns) else {}


def _all(cells: Sequence[Any], check: Callable[[Any], bool]) -> bool:
    """Return whether a column has values, and a check holds for all of them."""
    known = [cell for cell in cells if cell is not None]
    return bool(known) and all(map(check, known))


def _is_date(cell: Any) -> bool:
    if is_step(cell):
        return False
    try:
        moment_of(cell)
    except ValueError:
        return False
    return True


def _is_number(cell: Any) -> bool:
    try:
        float(cell)
    except (TypeError, ValueError):
        return False
    return True


def _is_regular(dataset: "Dataset", columns: Mapping[str, str]) -> bool:
    """Return whether a table has series of enough different values at regular times."""
    try:
        series = read_observations(dataset[:], columns, decimal=None, gaps="interpolate")
    except InputError:
        return False
    if len(set(dataset[columns["value"]][:])) < _FEWEST_VALUES:
        return False
    count = sum(map(len, series.values.values()))
    is_long = count >= _FEWEST_VALUES * len(series.values)
    return is_long and series.filled * 2 < count


def _is_prose(cells: Sequence[Any]) -> bool:
    """Return whether most cells of a column are texts of several words."""
    words = [len(cell.split()) for cell in cells if isinstance(cell, str)]
    return 2 * sum(count > _MOST_WORDS for count in words) > len(cells)
