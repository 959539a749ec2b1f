"""Tables with one row per event, joined to one history per customer and date."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from hf_finetune.errors import InputError, Problem, join_quoted, short_repr, suggestion
from hf_finetune.fields.times import SECONDS_PER_DAY, TIME_FORM, parse_time
from hf_finetune.tasks.events.history import DEFAULT_KIND, Event, kind_word, write_history
from hf_finetune.tasks.examples import JoinedRows

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
    problems = []
    for role in ROLES:
        name = columns.get(role)
        if name is None and role in ("customer", "time"):
            problems.append(Problem(f"data.columns.{role}", "must be set for a table with one row per event"))
        elif name is not None and name not in rows:
            place, fix = f"data.columns.{role}", suggestion(name, list(rows))
            problems.append(Problem(place, "must be a column of the data", repr(name), fix))
    if problems:
        raise InputError(problems)
    customers, times = rows[str(columns["customer"])], rows[str(columns["time"])]
    kinds = [DEFAULT_KIND] * len(times) if columns.get("kind") is None else rows[str(columns["kind"])]
    amounts = [None] * len(times) if columns.get("amount") is None else rows[str(columns["amount"])]
    log = pd.DataFrame(
        {
            "customer": [None if value is None else str(value).strip() for value in customers],
            "time": _parsed("time", times, _seconds, TIME_FORM),
            "kind": [DEFAULT_KIND if value in (None, "") else kind_word(value) for value in kinds],
            "amount": _parsed("amount", amounts, lambda value: _amount(value, decimal), "a number, or empty"),
            "row": np.arange(len(times)),
        }
    )
    if (nameless := log.index[log["customer"].isin([None, ""])]).size:
        value = f"none in row {nameless[0]}"
        raise InputError(Problem("data.columns.customer", "must name a customer in each row", value))
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
    rows = splits["train"][:]
    log = read_log(rows, columns, data.decimal or ".")
    joined = _with_labels(log, rows, columns, data) if data.outcome is None else _with_outcomes(log, data)
    return replace(joined, sources={role: columns[role] for role in ROLES if columns.get(role)})


def _with_outcomes(log: pd.DataFrame, data: Any) -> JoinedRows:
    if data.split.time is None:
        rule = "must be set with data.outcome: histories end at a date, and labels come after it"
        raise InputError(Problem("data.split.time", rule))
    weeks, kind = data.outcome.weeks, data.outcome.kind
    if kind is not None and kind_word(kind) not in set(log["kind"]):
        fix = suggestion(kind, sorted(set(log["kind"])))
        raise InputError(Problem("data.outcome.kind", "must be a kind of event in the data", repr(kind), fix))
    test_date = parse_time(data.split.time)
    train_date, end = test_date - weeks * _WEEK, test_date + weeks * _WEEK
    first, last = log["time"].min(), log["time"].max()
    if last + SECONDS_PER_DAY < end or first >= train_date:
        rule = (
            f"must have events before the {weeks} weeks before it, and events in the {weeks} weeks after it"
        )
        value = f"{data.split.time}, with events from {_date(first)} to {_date(last)}"
        low, high = first + SECONDS_PER_DAY + weeks * _WEEK, last + SECONDS_PER_DAY - weeks * _WEEK
        fix = f"Choose a date from {_date(low)} to {_date(high)}." if low <= high else "Set fewer weeks."
        raise InputError(Problem("data.split.time", rule, value, fix))
    parts = []
    for date in (train_date, test_date):
        part = histories_until(log, date)
        window = log[(log["time"] >= date) & (log["time"] < date + weeks * _WEEK)]
        events = window if kind is None else window[window["kind"] == kind_word(kind)]
        part["label"] = np.where(part["customer"].isin(set(events["customer"])), YES, NO)
        part[TIME_COLUMN] = _date(date)
        parts.append(part)
    what = "any event" if kind is None else f"an event of the kind {kind}"
    note = (
        f"One row per event: {len(log):,} events of {log['customer'].nunique():,} customers. Training histories end "
        f"before {_date(train_date)}, test histories before {_date(test_date)}; the label is {YES} if {what} follows "
        f"within {weeks} weeks. Customers can be in both splits, at different times."
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
    labels = pd.Series(rows[label]).iloc[log["row"]].set_axis(log.index).groupby(log["customer"])
    if (several := labels.nunique(dropna=False)).max() > 1:
        rule, value = "must have one value per customer", f"several for {short_repr(several.idxmax())}"
        raise InputError(Problem("data.columns.label", rule, value))
    joined = histories_until(log, float("inf"))
    joined["label"] = joined["customer"].map(labels.first())
    note = f"One row per event: {len(log):,} events of {len(joined):,} customers, all of them before the prediction."
    return _joined(joined.rename(columns={"label": label}), label, note)


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


def _parsed(role: str, values: Sequence[Any], parse: Any, form: str) -> np.ndarray:
    """Return numbers of values, each distinct one parsed once."""
    known: dict[Any, float] = {}
    numbers = np.empty(len(values))
    for row, value in enumerate(values):
        if value not in known:
            try:
                known[value] = parse(value)
            except (TypeError, ValueError):
                place, found = f"data.columns.{role}", f"{short_repr(value)} in row {row}"
                raise InputError(Problem(place, f"must contain in each row {form}", found)) from None
        numbers[row] = known[value]
    return numbers


def _seconds(value: Any) -> float:
    return parse_time(value)


def _amount(value: Any, decimal: str) -> float:
    if value is None or value == "":
        return float("nan")
    number = float(value.strip().replace(decimal, ".") if isinstance(value, str) else value)
    if abs(number) == float("inf"):
        raise ValueError
    return number


def _date(seconds: float) -> str:
    """Return a point in time as ISO 8601, without the time of day at midnight."""
    moment = pd.Timestamp(seconds, unit="s")
    return moment.strftime("%Y-%m-%d") if moment == moment.normalize() else moment.isoformat()
