"""Tables with one row per event, joined to one history per customer and date."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from hf_finetune.errors import InputError, Problem, counted, join_quoted, short_repr, suggestion
from hf_finetune.fields.numbers import parse_number
from hf_finetune.fields.times import SECONDS_PER_DAY, parse_time
from hf_finetune.tasks.event_rows import (
    UnclearValueError,
    check_columns,
    format_date,
    parse_column,
    read_customers,
    read_times,
)
from hf_finetune.tasks.events.history import Event, kind_word, write_history
from hf_finetune.tasks.examples import ExampleError, JoinedRows

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = ["histories_until", "join_log", "read_log"]

NO, YES = "no", "yes"
"""Classes of a computed label."""
TIME_COLUMN = "time"
"""Column of joined rows with the date of each example."""
ROLES = ("customer", "time", "kind", "amount")
"""Roles of the columns of the table."""
_WEEK = 7 * SECONDS_PER_DAY


def read_log(
    rows: "Mapping[str, Sequence[Any]]", columns: Mapping[str, str | None], decimal: str = "."
) -> pd.DataFrame:
    """Return the events of a table, sorted by customer and time.

    Args:
        rows: Columns of the table.
        columns: Names of the columns ``customer`` and ``time``, and perhaps of ``kind`` and ``amount``.
        decimal: Decimal mark of amounts that are text.

    Returns:
        Columns ``customer``, ``time`` (seconds since 1970), ``kind``, ``amount`` (NaN if unknown) and ``row``.

    Raises:
        InputError: If a column is missing, or a value is no customer, time or amount.
    """
    check_columns(rows, columns, ROLES[:2], ROLES[2:])
    customers, times = read_customers(rows[str(columns["customer"])]), rows[str(columns["time"])]
    kinds = [None] * len(times) if columns.get("kind") is None else rows[str(columns["kind"])]
    amounts = [None] * len(times) if columns.get("amount") is None else rows[str(columns["amount"])]
    log = pd.DataFrame(
        {
            "customer": customers,
            "time": read_times(times),
            "kind": [_kind(value, f" in row {row}") for row, value in enumerate(kinds)],
            "amount": parse_column(
                "amount", amounts, lambda value: _amount(value, decimal), "a number, or empty"
            ),
            "row": np.arange(len(times)),
        }
    )
    return log.sort_values(["customer", "time"], kind="stable")


def join_log(splits: "Mapping[str, Dataset]", columns: Mapping[str, Any], data: Any) -> JoinedRows:
    """Join the rows of a table with one row per event to examples: a history, its date and its label.

    With ``data.outcome``, the date of the test examples is ``data.split.time``, and that of the training examples is
    earlier by the weeks of the outcome: their labels are known at the date of the test, and no example sees an event on
    or after its own date. Otherwise each customer is one example with all events, and a label from a column.

    Args:
        splits: Tables as loaded.
        columns: Column names by role, as in a recipe.
        data: ``data`` of the recipe.

    Returns:
        The examples, all of them in the training split; ``data.split.time`` divides them by their dates.

    Raises:
        InputError: If the table or the fields cannot be used.
    """
    if set(splits) != {"train"}:
        rule = "must be one table if it has one row per event: it is divided by data.split.time, or at random"
        raise InputError(Problem("data.path", rule, join_quoted(splits)))
    if problems := list(_unused_columns(columns, data)):
        raise InputError(problems)
    rows = splits["train"][:]
    log = read_log(rows, columns, data.decimal or ".")
    joined = _with_labels(log, rows, columns, data) if data.outcome is None else _with_outcomes(log, data)
    return replace(joined, sources={role: columns[role] for role in ROLES if columns.get(role)})


def _unused_columns(columns: Mapping[str, Any], data: Any) -> Iterator[Problem]:
    """Yield the problem of each column that a table with one row per event has no use for."""
    fixes = {
        "events": "Histories are joined from its rows; a table of histories needs no data.columns.customer.",
        "weight": "The rows of a customer are one example, which has no weight.",
    }
    rule = "must not be set for a table with one row per event"
    for role, fix in fixes.items():
        if columns.get(role) is not None:
            yield Problem(f"data.columns.{role}", rule, short_repr(columns[role]), fix)
    if data.outcome is not None and columns.get("label") is not None:
        rule = "must not be set with data.outcome, which computes the label"
        yield Problem("data.columns.label", rule, short_repr(columns["label"]))


def _with_outcomes(log: pd.DataFrame, data: Any) -> JoinedRows:
    if data.split.time is None:
        rule = "must be set with data.outcome: histories end at a date, and labels come after it"
        raise InputError(Problem("data.split.time", rule))
    weeks, kind = data.outcome.weeks, data.outcome.kind
    if kind is not None and _kind(kind) not in set(log["kind"]):
        fix = suggestion(kind, sorted(set(log["kind"])))
        raise InputError(Problem("data.outcome.kind", "must be a kind of event in the data", repr(kind), fix))
    test_date = parse_time(data.split.time)
    train_date, end = test_date - weeks * _WEEK, test_date + weeks * _WEEK
    first, last = log["time"].min(), log["time"].max()
    if last + SECONDS_PER_DAY < end or first >= train_date:
        span = counted(weeks, "week")
        rule = f"must have events before the {span} before it, and events in the {span} after it"
        value = f"{data.split.time}, with events from {format_date(first)} to {format_date(last)}"
        low, high = first + SECONDS_PER_DAY + weeks * _WEEK, last + SECONDS_PER_DAY - weeks * _WEEK
        fix = (
            f"Choose a date from {format_date(low)} to {format_date(high)}."
            if low <= high
            else "Set fewer weeks."
        )
        raise InputError(Problem("data.split.time", rule, value, fix))
    parts = []
    for date in (train_date, test_date):
        part = histories_until(log, date)
        window = log[(log["time"] >= date) & (log["time"] < date + weeks * _WEEK)]
        events = window if kind is None else window[window["kind"] == _kind(kind)]
        part["label"] = np.where(part["customer"].isin(set(events["customer"])), YES, NO)
        part[TIME_COLUMN] = format_date(date)
        parts.append(part)
    what = "any event" if kind is None else f"an event of the kind {kind}"
    note = (
        f"One row per event: {len(log):,} events of {log['customer'].nunique():,} customers. Training histories end "
        f"before {format_date(train_date)}, test histories before {format_date(test_date)}; the label is {YES} if "
        f"{what} follows within {counted(weeks, 'week')}. Customers can be in both splits, at different times."
    )
    return _joined(pd.concat(parts, ignore_index=True), "label", note)


def _with_labels(
    log: pd.DataFrame, rows: Mapping[str, Any], columns: Mapping[str, Any], data: Any
) -> JoinedRows:
    label = columns.get("label")
    if not isinstance(label, str):
        rule = (
            "must be a column whose value is the same in all rows of a customer, or data.outcome must be set"
        )
        raise InputError(Problem("data.columns.label", rule, "" if label is None else short_repr(label)))
    if label not in rows:
        rule = "must be a column of the data"
        raise InputError(Problem("data.columns.label", rule, repr(label), suggestion(label, list(rows))))
    if data.split.time is not None:
        rule = "must not be set for a table with one row per event unless data.outcome is set"
        raise InputError(
            Problem("data.split.time", rule, data.split.time, "It is unknown when a label was known.")
        )
    labels: dict[str, Any] = {}
    for customer, row in zip(log["customer"], log["row"], strict=True):
        value = rows[label][row]
        known = labels.setdefault(customer, None if value != value else value)
        if known != value and not (known is None and value != value):
            rule, found = "must have one value per customer", f"several for {short_repr(customer)}"
            raise InputError(Problem("data.columns.label", rule, found))
    joined = histories_until(log, float("inf"))
    values = [labels[customer] for customer in joined["customer"]]
    name = label if label not in (*joined, TIME_COLUMN) else "label"
    joined[name] = pd.Series(values, dtype=object)  # other types would change integers next to a missing one
    note = f"One row per event: {len(log):,} events of {len(joined):,} customers, all of them before the prediction."
    return _joined(joined, name, note)


def histories_until(log: pd.DataFrame, date: float) -> pd.DataFrame:
    """Return the history of each customer with an event before a date, in columns ``customer`` and ``events``.

    Args:
        log: Events from ``read_log``.
        date: Date in seconds since 1970; infinity is the time of the newest event.
    """
    past = log[log["time"] < date]
    reference = past["time"].max() if date == float("inf") else date
    days = (reference - past["time"]) / SECONDS_PER_DAY
    texts: dict[str, list[Event]] = {}
    amounts = past["amount"].where(past["amount"].notna(), None).tolist()
    events = zip(past["customer"], past["kind"], days.tolist(), amounts, strict=True)
    for customer, kind, age, amount in events:
        texts.setdefault(customer, []).append(Event(kind, age, None if amount != amount else amount))
    written = [write_history(reversed(history)) for history in texts.values()]
    return pd.DataFrame({"customer": list(texts), "events": written})


def _joined(examples: pd.DataFrame, label: str, note: str) -> JoinedRows:
    from datasets import Dataset

    names = [name for name in ("customer", "events", label, TIME_COLUMN) if name in examples]
    dataset = Dataset.from_dict({name: examples[name].tolist() for name in names})
    columns = {"events": "events", "label": label}
    time = TIME_COLUMN if TIME_COLUMN in names else None
    return JoinedRows({"train": dataset}, columns, {}, time, (note,))


def _kind(value: Any, where: str = "") -> str:
    try:
        return kind_word(value)
    except ExampleError:
        rule = "must not contain a special token of the model"
        raise InputError(Problem("data.columns.kind", rule, f"{short_repr(value)}{where}")) from None


def _amount(value: Any, decimal: str) -> float:
    if value is None or (isinstance(value, str) and not value.strip()):
        return float("nan")
    number = parse_number(value, decimal) if isinstance(value, str) else float(value)
    if number is None and "," in value and decimal != ",":
        raise UnclearValueError("If the comma is a decimal mark, set data.decimal: ','; else remove it.")
    if number is None or abs(number) == float("inf"):
        raise ValueError
    return number
