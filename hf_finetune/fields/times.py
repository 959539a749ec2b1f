"""Points in time: dates and times in ISO 8601, as text or as Python's types."""

from datetime import UTC, date, datetime
from typing import Any

__all__ = ["SECONDS_PER_DAY", "TIME_FORM", "is_time", "parse_time"]

SECONDS_PER_DAY = 86_400
TIME_FORM = "a date or time such as 2024-05-31 or 2024-05-31T12:30"
"""Form of a time, for messages."""


def parse_time(value: Any) -> float:
    """Return a point in time in seconds since 1970; times without a time zone count as UTC.

    Args:
        value: Text in ISO 8601, such as ``2024-05-31``, ``20240531`` or ``2024-05-31 12:30``; or a date or datetime.

    Raises:
        ValueError: If it is none; the message contains the value.
    """
    if isinstance(value, bool) or not isinstance(value, str | int | date):
        raise ValueError(repr(value))
    if isinstance(value, date):
        moment = value if isinstance(value, datetime) else datetime(value.year, value.month, value.day)
    else:
        try:
            moment = datetime.fromisoformat(str(value).strip())
        except ValueError:
            raise ValueError(repr(value)) from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def is_time(value: Any) -> bool:
    """Return whether ``parse_time`` reads a value.

    Args:
        value: Any value.
    """
    try:
        parse_time(value)
    except ValueError:
        return False
    return True
