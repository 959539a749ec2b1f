"""Errors in the user's input, with the information needed to fix them."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches

__all__ = ["DataNotThere", "HubUnreachable", "InputError", "Problem", "collect_problems", "nearest"]

_MOST_KNOWN = 50


@dataclass(frozen=True)
class Problem:
    """One error in the input.

    Attributes:
        place: Location: ``stages[1].train``, ``photos/soup.jpg``, ``data.columns.label``.
        rule: Violated rule, as a clause after the place: ``must be above 0``.
        value: Value at the place, as the user wrote it; empty if there is nothing to show.
        repair: Fix, a sentence; empty if the rule is enough.
    """

    place: str
    rule: str
    value: str = ""
    repair: str = ""

    def __str__(self) -> str:
        sentence = f"{self.place} {self.rule}."
        if self.value:
            sentence += f" Got {self.value}."
        if self.repair:
            sentence += f" {self.repair}"
        return sentence


class InputError(ValueError):
    """Raised if the recipe, the data or the checkpoint cannot be used; holds all problems, not only the first."""

    def __init__(self, problems: Problem | Iterable[Problem]):
        self.problems = (problems,) if isinstance(problems, Problem) else tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class DataNotThere(InputError):
    """Raised if ``data.path`` exists neither locally nor on the Hub."""


class HubUnreachable(DataNotThere):
    """Raised if data does not exist locally and the Hub, where it might be, does not respond."""


def nearest(word: str, known: Sequence[str]) -> str:
    """Return a hint at the known word that was probably meant: ``Nearest: 'epochs'.``

    Args:
        word: Word that the user wrote.
        known: Allowed words.

    Returns:
        The hint; a list of the known words if none is close, and empty if there are none.
    """
    close = get_close_matches(word, known, n=1, cutoff=0.6)
    if close:
        return f"Nearest: {close[0]!r}."
    more = f" and {len(known) - _MOST_KNOWN} more" if len(known) > _MOST_KNOWN else ""
    return f"Known: {', '.join(repr(name) for name in known[:_MOST_KNOWN])}{more}." if known else ""


@contextmanager
def collect_problems(problems: list[Problem]) -> Iterator[None]:
    """Append the problems of an ``InputError`` raised in the block to ``problems``, and continue after the block."""
    try:
        yield
    except InputError as error:
        problems.extend(error.problems)
