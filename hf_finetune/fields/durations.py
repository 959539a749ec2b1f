"""Durations as text, such as ``90s``, ``20m`` or ``1h30m``."""

import re
from math import isfinite
from typing import Any

__all__ = ["DURATION_PATTERN", "format_duration", "parse_duration"]

UNIT_SECONDS = {"d": 86400, "h": 3600, "m": 60, "s": 1}
"""Seconds of each unit, from the longest to the shortest; a text has each unit at most once, in this order."""
DURATION_PATTERN = "".join(rf"(?:(\d+(?:\.\d+)?)\s*{unit}\s*)?" for unit in UNIT_SECONDS)
"""Regular expression of a duration, with a group for the number of each unit; it also matches an empty text."""


def parse_duration(value: Any) -> float | None:
    """Return a duration in seconds.

    Args:
        value: Text with units, such as ``1h30m``, or a number of seconds.

    Returns:
        Seconds, above 0; None if the value is not a duration.
    """
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    if isinstance(value, str):
        match = re.fullmatch(DURATION_PATTERN, value.strip().lower())
        numbers = match.groups() if match else ()
        seconds = sum(
            float(number or 0) * size for number, size in zip(numbers, UNIT_SECONDS.values(), strict=False)
        )
    else:
        seconds = float(value)
    return seconds if isfinite(seconds) and seconds > 0 else None


def format_duration(seconds: float) -> str:
    """Return a duration as text that ``parse_duration`` reads: ``90.0`` becomes ``1m30s``.

    Args:
        seconds: Duration above 0, rounded to milliseconds.
    """
    rest, parts = round(seconds, 3), []
    for unit, size in UNIT_SECONDS.items():
        number = rest if unit == "s" else rest // size
        rest = round(rest - number * size, 3)
        if number:
            parts.append(f"{number:.15g}{unit}")
    return "".join(parts) or "0s"
