"""Columns of histories, which are lists or texts, or are joined from a table with one row per event."""

from collections.abc import Sequence
from typing import Any

from hf_finetune.tasks.columns import ColumnRole, is_string

__all__ = ["CUSTOMER", "are_lists", "holds_histories", "row_role"]


def holds_histories(feature: Any) -> bool:
    """Return whether a column contains lists, or strings.

    Args:
        feature: Feature type of the column.
    """
    return is_string(feature) or isinstance(feature, list) or type(feature).__name__ in ("List", "LargeList")


def are_lists(cells: Sequence[Any]) -> bool:
    """Return whether the cells of a column are lists, or texts of JSON lists or mappings; other texts may be anything.

    Args:
        cells: Cells of a column.
    """
    known = [cell for cell in cells if cell is not None]
    return bool(known) and all(
        isinstance(cell, list | tuple | dict) or str(cell).lstrip().startswith(("[", "{")) for cell in known
    )


def row_role(name: str, plural: str, rule: str, description: str) -> ColumnRole:
    """Return the role of an optional column of a table with one row per event, of any type and name.

    Args:
        name: Name of the role.
        plural: Noun for the content of the column.
        rule: Rule for its type, for messages.
        description: Description of the recipe field.
    """
    return ColumnRole(name, plural, rule, (), _is_any, description, optional=True)


def _is_any(feature: Any) -> bool:
    return True


CUSTOMER = row_role(
    "customer",
    "customers",
    "must name a customer",
    "Column of the customer, for a table with one row per event; null = one row per history.",
)
"""Column that identifies the history of an event."""
