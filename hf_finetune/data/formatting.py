"""Lists and durations in messages."""

from collections.abc import Iterable

__all__ = ["MOST_SHOWN", "format_seconds", "listed", "quoted", "shortened"]

MOST_SHOWN = 20
"""Problems of one kind that are told one by one, and names in a list of all there are."""

_MOST_IN_A_LINE = 8
_LONGEST = 100


def listed(words: Iterable[str], most: int = _MOST_IN_A_LINE) -> str:
    """Write words one after another, at most ``most`` of them and then a count of the rest."""
    every = list(words)
    shown = ", ".join(every[:most])
    return shown if len(every) <= most else f"{shown} and {len(every) - most} more"


def quoted(words: Iterable[str], most: int = _MOST_IN_A_LINE) -> str:
    """Write words as ``listed`` does, each between quotes."""
    return listed((repr(word) for word in words), most)


def shortened(text: str, longest: int = _LONGEST) -> str:
    """Return the first characters of a text, with three points after them if there are more."""
    return text if len(text) <= longest else f"{text[:longest]}..."


def format_seconds(seconds: float) -> str:
    """Return a duration as people say it: ``40 s``, ``12 min``, ``3.5 h``."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
