"""Columns of tables with one row per event, which are joined to one history per customer."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from hf_finetune.errors import InputError, Problem, short_repr, suggestion
from hf_finetune.fields.times import SECONDS_PER_DAY, TIME_FORM, parse_time

__all__ = [
    "CUSTOMER_AND_TIME",
    "UnclearValueError",
    "check_columns",
    "format_date",
    "parse_column",
    "read_customers",
    "read_times",
    "usual_columns",
]

CUSTOMER_AND_TIME: Mapping[str, Sequence[str]] = {
    "customer": (
        "customer",
        "customer_id",
        "user",
        "user_id",
        "client",
        "client_id",
        "member_id",
        "visitor_id",
    ),
    "time": (
        "time",
        "timestamp",
        "date",
        "datetime",
        "order_date",
        "purchase_date",
        "event_time",
        "created_at",
    ),
}
"""Usual names of columns of a table with one row per event, the most usual one first."""


class UnclearValueError(ValueError):
    """Raised for a value that another recipe may explain; its message is the repair."""


def check_columns(
    rows: Mapping[str, Sequence[Any]],
    columns: Mapping[str, Any],
    required: Sequence[str],
    optional: Sequence[str],
) -> None:
    """Check that the columns of a table are named and present.

    Args:
        rows: Columns of the table.
        columns: Column names by role.
        required: Roles that must have a column.
        optional: Roles that may have a column.

    Raises:
        InputError: With one problem for each column that is missing.
    """
    problems = []
    for role in (*required, *optional):
        name = columns.get(role)
        if name is None and role in required:
            problems.append(Problem(f"data.columns.{role}", "must be set for a table with one row per event"))
        elif name is not None and name not in rows:
            place, fix = f"data.columns.{role}", suggestion(name, list(rows))
            problems.append(Problem(place, "must be a column of the data", repr(name), fix))
    if problems:
        raise InputError(problems)


def usual_columns(names: Sequence[str], usual: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Return the column of each role that has one of its usual names.

    Args:
        names: Columns of a table.
        usual: Usual names of each role, the most usual one first.
    """
    lower = {name.lower(): name for name in reversed(names)}
    found = {role: [lower[name] for name in each if name in lower] for role, each in usual.items()}
    return {role: columns[0] for role, columns in found.items() if columns}


def read_customers(values: Sequence[Any]) -> list[str]:
    """Return the customer of each row.

    Args:
        values: Cells of the column.

    Raises:
        InputError: If a row has none.
    """
    customers = ["" if value is None else str(value).strip() for value in values]
    if "" in customers:
        value = f"none in row {customers.index('')}"
        raise InputError(Problem("data.columns.customer", "must name a customer in each row", value))
    return customers


def read_times(values: Sequence[Any]) -> np.ndarray:
    """Return the time of each row in seconds since 1970.

    Args:
        values: Cells of the column.

    Raises:
        InputError: If one is no time.
    """
    return parse_column("time", values, parse_time, TIME_FORM)


def parse_column(role: str, values: Sequence[Any], parse: Callable[[Any], float], form: str) -> np.ndarray:
    """Return numbers of cells, each distinct one parsed once.

    Args:
        role: Role of the column, for messages.
        values: Cells of the column.
        parse: Function of a cell that raises ``TypeError`` or ``ValueError`` if it is invalid.
        form: Form of a valid cell, for messages.

    Raises:
        InputError: If a cell is invalid.
    """
    known: dict[Any, float] = {}
    numbers = np.empty(len(values))
    for row, value in enumerate(values):
        try:
            if value not in known:
                known[value] = parse(value)
        except (TypeError, ValueError) as error:
            place, found = f"data.columns.{role}", f"{short_repr(value)} in row {row}"
            rule, fix = (
                f"must contain in each row {form}",
                str(error) if isinstance(error, UnclearValueError) else "",
            )
            raise InputError(Problem(place, rule, found, fix)) from None
        numbers[row] = known[value]
    return numbers


def format_date(seconds: float) -> str:
    """Return a point in time as ISO 8601, without the time of day at midnight.

    Args:
        seconds: Seconds since 1970.
    """
    moment = np.datetime64(round(seconds * 1_000_000), "us")
    if seconds % SECONDS_PER_DAY == 0:
        return str(moment.astype("datetime64[D]"))
    return str(moment.astype("datetime64[s]" if seconds % 1 == 0 else "datetime64[us]"))
