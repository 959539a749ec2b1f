"""Columns of a table with one row per event and a label for each customer, by their usual names and values."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hf_finetune.errors import InputError
from hf_finetune.tasks.event_rows import CUSTOMER_AND_TIME, read_times, usual_columns

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = ["guess_log"]

_OPTIONAL = {
    "kind": ("kind", "event", "event_type", "action", "activity", "type"),
    "amount": ("amount", "price", "value", "revenue", "spent", "total"),
}
_ROWS_PER_CUSTOMER, _CUSTOMERS_PER_CLASS, _MOST_CLASSES = 2, 3, 20
"""Smallest mean number of rows of a customer and of customers of a class, and largest number of classes."""


def guess_log(dataset: "Dataset") -> dict[str, Any]:
    """Return the fields of ``data`` for a table with one row per event.

    The label is the only other column that has one value for each customer, and several customers for each value.

    Args:
        dataset: Table as loaded.

    Returns:
        ``columns``; empty if the table has no such rows.
    """
    columns = usual_columns(dataset.column_names, {**CUSTOMER_AND_TIME, **_OPTIONAL})
    if not set(CUSTOMER_AND_TIME) <= set(columns):
        return {}
    customers = dataset[columns["customer"]][:]
    if len(set(customers)) * _ROWS_PER_CUSTOMER > len(dataset):
        return {}
    others = [name for name in dataset.column_names if name not in columns.values()]
    labels = [name for name in others if _are_labels(dataset[name][:], customers)]
    try:
        read_times(dataset[columns["time"]][:])
    except InputError:
        return {}
    return {"columns": {**columns, "label": labels[0]}} if len(labels) == 1 else {}


def _are_labels(cells: Sequence[Any], customers: Sequence[Any]) -> bool:
    """Return whether each customer has one value, and there are a few values with several customers each."""
    pairs = {(customer, str(cell)) for customer, cell in zip(customers, cells, strict=True)}
    classes = len({value for _, value in pairs})
    return len(pairs) == len(set(customers)) and 2 <= classes <= min(
        _MOST_CLASSES, len(pairs) // _CUSTOMERS_PER_CLASS
    )
