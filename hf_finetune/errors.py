"""Errors in the user's input, with the information needed to fix them."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from reprlib import Repr
from typing import Any

__all__ = [
    "MAX_LISTED_PROBLEMS",
    "DataNotFoundError",
    "HubUnreachableError",
    "InputError",
    "MissingSplitError",
    "Problem",
    "collect_problems",
    "counted",
    "format_seconds",
    "join_quoted",
    "join_words",
    "short_repr",
    "suggestion",
    "truncate",
]

MAX_LISTED_PROBLEMS = 20
"""Maximum number of problems of one kind that are reported one by one, and of names in a complete list."""

_MAX_LISTED = 8
"""Maximum number of words in an enumeration."""
_MAX_TEXT_CHARACTERS = 100
"""Maximum length of a text in a message."""
_MAX_SUGGESTIONS = 50
"""Maximum number of allowed words in a hint."""


@dataclass(frozen=True)
class Problem:
    """One error in the input.

    Attributes:
        place: Location: ``stages[1].train``, ``photos/soup.jpg``, ``data.columns.label``.
        rule: Violated rule or fault, as a clause after the place: ``must be above 0``, ``contains no rows``.
        value: Value at the place, as the user wrote it, or what was found there; empty if there is nothing to show.
        repair: Fix, a sentence; empty if the rule is enough.

    Example:
        >>> from hf_finetune import Problem
        >>> print(Problem("stages[0].lr", "must be above 0", "-0.1"))
        stages[0].lr must be above 0. Got -0.1.
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
    """Raised if the recipe, the data or the checkpoint cannot be used; contains all problems, not only the first.

    Args:
        problems: The problem, or all of them.

    Attributes:
        problems: All problems; the text of the error has one line for each.

    Example:
        >>> from hf_finetune import InputError, load_recipe
        >>> try:
        ...     load_recipe("reviews.yaml", ["seed=-1"])
        ... except InputError as error:
        ...     problem = error.problems[0]
        >>> problem.place, problem.rule, problem.value
        ('seed', 'must be at least 0', '-1')
    """

    def __init__(self, problems: Problem | Iterable[Problem]):
        self.problems = (problems,) if isinstance(problems, Problem) else tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class DataNotFoundError(InputError):
    """Raised if ``data.path`` exists neither locally nor on the Hub."""


class HubUnreachableError(DataNotFoundError):
    """Raised if data does not exist locally and the Hub, where it might be, does not respond."""


class MissingSplitError(InputError):
    """Raised if the data, or the run, has no split of the requested name."""


def suggestion(word: str, known: Sequence[str]) -> str:
    """Return a hint with the allowed word that was probably meant: ``Nearest: 'epochs'.``

    Args:
        word: Word that the user wrote.
        known: Allowed words.

    Returns:
        The hint; a list of the allowed words if none is similar, and empty if there are none.
    """
    close = get_close_matches(word, known, n=1, cutoff=0.6)
    if close:
        return f"Nearest: {close[0]!r}."
    more = f" and {len(known) - _MAX_SUGGESTIONS} more" if len(known) > _MAX_SUGGESTIONS else ""
    return f"Known: {', '.join(repr(name) for name in known[:_MAX_SUGGESTIONS])}{more}." if known else ""


@contextmanager
def collect_problems(problems: list[Problem]) -> Iterator[None]:
    """Append the problems of an ``InputError`` raised in the block to ``problems``, and continue after the block.

    Args:
        problems: List to which the problems are appended.
    """
    try:
        yield
    except InputError as error:
        problems.extend(error.problems)


def join_words(words: Iterable[str], most: int = _MAX_LISTED) -> str:
    """Return words separated by commas; after the first ``most`` words, only the number of further words.

    Args:
        words: Words to enumerate.
        most: Maximum number of words in the text.
    """
    items = list(words)
    text = ", ".join(items[:most])
    return text if len(items) <= most else f"{text} and {len(items) - most} more"


def join_quoted(words: Iterable[str], most: int = _MAX_LISTED) -> str:
    """Return words as ``join_words`` does, each in quotes.

    Args:
        words: Words to enumerate.
        most: Maximum number of words in the text.
    """
    return join_words((repr(word) for word in words), most)


def counted(count: float, noun: str, several: str = "") -> str:
    """Format a number with its noun: 1 thread, 2 threads.

    Args:
        count: Number.
        noun: Singular form.
        several: Plural form; empty adds an s to the singular.

    Returns:
        Text such as ``1,000 steps``.
    """
    return f"{count:,.15g} {noun if count == 1 else several or f'{noun}s'}"


def truncate(text: str, longest: int = _MAX_TEXT_CHARACTERS) -> str:
    """Return a text truncated to ``longest`` characters, with an ellipsis if it is longer.

    Args:
        text: Text of any length.
        longest: Maximum number of characters before the ellipsis.
    """
    return text if len(text) <= longest else f"{text[:longest]}..."


def format_seconds(seconds: float) -> str:
    """Return a duration in readable form: ``40 s``, ``12 min``, ``3.5 h``."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


_short = Repr()
_short.maxstring = _short.maxother = 100
_short.maxlevel = 3


def short_repr(value: Any) -> str:
    """Return the ``repr`` of a value, truncated if it is long; a tuple is shown as a list, as in the recipe file."""
    return _short.repr(list(value) if isinstance(value, tuple) else value)
