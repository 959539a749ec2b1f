"""Formatting of lists, texts and durations in messages."""

from collections.abc import Iterable

__all__ = ["MOST_SHOWN", "format_seconds", "listed", "quoted", "shortened"]

MOST_SHOWN = 20
"""Largest number of problems of one kind that are reported one by one, and of names in a complete list."""

_MOST_IN_A_LINE = 8
_LONGEST = 100


def listed(words: Iterable[str], most: int = _MOST_IN_A_LINE) -> str:
    """Return words separated by commas; after the first ``most`` words, only the number of further words."""
    every = list(words)
    shown = ", ".join(every[:most])
    return shown if len(every) <= most else f"{shown} and {len(every) - most} more"


def quoted(words: Iterable[str], most: int = _MOST_IN_A_LINE) -> str:
    """Return words as ``listed`` does, each in quotes."""
    return listed((repr(word) for word in words), most)


def shortened(text: str, longest: int = _LONGEST) -> str:
    """Return a text truncated to ``longest`` characters, with an ellipsis if it is longer."""
    return text if len(text) <= longest else f"{text[:longest]}..."


def format_seconds(seconds: float) -> str:
    """Return a duration in readable form: ``40 s``, ``12 min``, ``3.5 h``."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
