"""Histories of events and their text form, such as ``since=30 buy amount=11.77 gap=26 buy amount=29.33``.

The newest event comes first. ``since`` is the number of days from it to the date of the prediction, ``gap`` the number
of days to the next older event; both are left out where times are unknown, as ``amount`` is without an amount.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

from hf_finetune.errors import short_repr
from hf_finetune.fields.times import SECONDS_PER_DAY, parse_time
from hf_finetune.tasks.events.buckets import format_number
from hf_finetune.tasks.examples import ExampleError
from hf_finetune.tasks.word_level import SPECIAL, holds_special

__all__ = ["Event", "kind_word", "parse_history", "read_history", "write_history"]

DEFAULT_KIND = "event"
"""Kind of events whose data has no kinds."""
KEYS = ("kind", "time", "days", "amount")
"""Keys of an event in a list."""
NUMBERS = ("since", "gap", "amount")
"""Names of the numbers in the text form."""


@dataclass(frozen=True)
class Event:
    """Event of a history.

    Attributes:
        kind: Kind, a word.
        days: Days from the event to the date of the prediction, at least 0; None if unknown.
        amount: Amount, such as a price; None if unknown.
    """

    kind: str
    days: float | None = None
    amount: float | None = None


def kind_word(kind: Any) -> str:
    """Return a kind as one word.

    Args:
        kind: Kind of event; white space and ``=`` become underscores. None, and white space alone, is no kind.

    Raises:
        ExampleError: If it contains a special token.
    """
    word = "" if kind is None else re.sub(r"[\s=]+", "_", str(kind).strip())
    return _checked(word or DEFAULT_KIND)


def _checked(kind: str) -> str:
    if holds_special(kind):
        raise ExampleError(f"one with the kind {short_repr(kind)}; reserved are {', '.join(SPECIAL)}")
    return kind


def write_history(events: Iterable[Event]) -> str:
    """Return the text form of events, whose order does not matter if their times are known.

    Args:
        events: Events, the newest first.
    """
    ordered = list(events)
    if all(event.days is not None for event in ordered):
        ordered.sort(key=lambda event: event.days or 0.0)  # stable
    words: list[str] = []
    newer: float | None = None
    for event in ordered:
        if event.days is not None:
            number = event.days if newer is None else event.days - newer
            words.append(f"{'since' if newer is None else 'gap'}={format_number(number)}")
            newer = event.days
        words.append(event.kind)
        if event.amount is not None:
            words.append(f"amount={format_number(event.amount)}")
    return " ".join(words)


def parse_history(text: str) -> list[Event]:
    """Return the events of a text form, the newest first.

    Args:
        text: Words such as ``since=30 buy amount=11.77``.

    Raises:
        ExampleError: If the text is not in this form.
    """
    events: list[Event] = []
    days: float | None = None
    for word in text.split():
        name, equals, number = word.partition("=")
        if not equals:
            events.append(Event(_checked(word), days))
            continue
        if name not in NUMBERS:
            raise ExampleError(f"one with {short_repr(word)}, where {', '.join(NUMBERS)} are known")
        value = _number(number, name)
        if name == "amount":
            if not events or events[-1].amount is not None:
                raise ExampleError("one with an amount that does not follow its event")
            events[-1] = Event(events[-1].kind, events[-1].days, value)
        elif value < 0 or (name == "since") != (not events) or (name == "since" and days is not None):
            raise ExampleError(f"one with {short_repr(word)} in a wrong place or below 0")
        elif name == "gap" and days is None:
            raise ExampleError(f"one with {short_repr(word)} but no since before its newest event")
        else:
            days = value + (days or 0.0)
    if not events:
        raise ExampleError("empty")
    return events


def read_history(cell: Any) -> str:
    """Return the text form of a history as it is stored in data.

    Args:
        cell: The text form; or a list, or a JSON list as text: of kinds (the oldest first), or of mappings with
            ``kind``, ``time`` or ``days`` (before the date of the prediction), and ``amount``, each of them optional.

    Raises:
        ExampleError: If the cell contains no history.
    """
    if isinstance(cell, str):
        text = cell.strip()
        if not text.startswith("["):
            return write_history(parse_history(text))
        try:
            cell = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ExampleError(f"a damaged JSON list ({error})") from None
    if not isinstance(cell, list | tuple) or not cell:
        raise ExampleError(
            "empty" if cell is None or cell in ([], ()) else f"no list of events: {short_repr(cell)}"
        )
    return write_history(_events(cell))


def _events(items: Sequence[Any]) -> list[Event]:
    """Return the events of a list in the order of the text form."""
    fields = [{"kind": item} if isinstance(item, str) else item for item in items]
    for item in fields:
        # in a table, an event has the keys of all events, with null for those that it lacks
        given = [key for key in item if item[key] is not None] if isinstance(item, Mapping) else [item]
        unknown = [key for key in given if key not in KEYS]
        if unknown:
            raise ExampleError(
                f"a list with {short_repr(unknown[0])}; known keys of an event: {', '.join(KEYS)}"
            )
    days = _days(fields)
    kinds = [kind_word(item.get("kind")) for item in fields]
    amounts = [None if item.get("amount") is None else _number(item["amount"], "amount") for item in fields]
    events = [Event(*values) for values in zip(kinds, days, amounts, strict=True)]
    return events[::-1]


def _days(fields: Sequence[Mapping[str, Any]]) -> list[float | None]:
    """Return the days of each event: those that are given, or the time from it to the newest event."""
    stated = [name for name in ("days", "time") if any(item.get(name) is not None for item in fields)]
    if not stated:
        return [None] * len(fields)
    if len(stated) > 1 or any(item.get(stated[0]) is None for item in fields):
        raise ExampleError("a list in which some events have no time, or days instead of a time")
    if stated == ["days"]:
        numbers = [_number(item["days"], "days") for item in fields]
        if min(numbers) < 0:
            raise ExampleError("a list with negative days")
        return [*numbers]
    try:
        seconds = [parse_time(item["time"]) for item in fields]
    except ValueError as error:
        raise ExampleError(f"a list with a time that is no date ({error})") from None
    return [(max(seconds) - second) / SECONDS_PER_DAY for second in seconds]


def _number(value: Any, name: str) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = float("nan")
    if not isfinite(number) or isinstance(value, bool):
        raise ExampleError(f"one whose {name} is no number: {short_repr(value)}")
    return number
