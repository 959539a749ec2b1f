"""Regular expressions of a recipe: checked when they are read, and matched within a bounded time.

A recipe may come from a stranger, and a pattern such as ``(a|a)*$`` can take longer than anyone waits. The ``re`` of
Python cannot be stopped; the package ``regex`` matches the same patterns and has a time limit.
"""

import re
from collections.abc import Collection
from time import monotonic

import regex

__all__ = ["LONGEST", "SECONDS", "PatternError", "check_pattern", "matching"]

LONGEST = 1_000
"""Characters of a pattern."""
SECONDS, SECONDS_PER_NAME = 1.0, 1e-3
"""Time in which a pattern must be matched: once, and for each name."""


class PatternError(ValueError):
    """A pattern that cannot be used; the text is a rule, as in ``Problem``."""


def check_pattern(pattern: str) -> None:
    """Check that a pattern can be compiled.

    Raises:
        PatternError: If it is no regular expression, or longer than ``LONGEST``.
    """
    if len(pattern) > LONGEST:
        raise PatternError(f"must be a regular expression of at most {LONGEST:,} characters")
    try:
        re.compile(pattern)
        regex.compile(pattern)
    except (re.error, regex.error, OverflowError, RecursionError) as error:
        raise PatternError(f"must hold a valid regular expression ({error})") from error


def matching(pattern: str, names: Collection[str]) -> dict[str, regex.Match[str]]:
    """Return the match in each name in which a pattern is found, at any place of the name.

    Args:
        pattern: A regular expression.
        names: Names of parameters, weights, layers or files.

    Raises:
        PatternError: If it is no regular expression, or takes longer.
    """
    check_pattern(pattern)
    compiled, found = regex.compile(pattern), {}
    until = monotonic() + SECONDS + SECONDS_PER_NAME * len(names)
    for name in names:
        try:
            if match := compiled.search(name, timeout=max(until - monotonic(), SECONDS_PER_NAME)):
                found[name] = match
        except TimeoutError as error:
            raise PatternError(
                "must be a regular expression that is matched within seconds, without a repeat inside a repeat as in "
                "(a|a)*"
            ) from error
    return found
