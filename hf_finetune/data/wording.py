"""Long lists in messages, cut short."""

from collections.abc import Iterable

__all__ = ["MOST_SHOWN", "listed", "quoted"]

MOST_SHOWN = 20


def listed(words: Iterable[str], most: int = MOST_SHOWN) -> str:
    """Write words one after another, at most ``most`` of them and then a count of the rest."""
    every = list(words)
    shown = ", ".join(every[:most])
    return shown if len(every) <= most else f"{shown} and {len(every) - most} more"


def quoted(words: Iterable[str], most: int = MOST_SHOWN) -> str:
    """Write words as ``listed`` does, each between quotes."""
    return listed((repr(word) for word in words), most)
