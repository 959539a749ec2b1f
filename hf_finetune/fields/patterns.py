"""Regular expressions of a recipe: validated when they are read, and matched with a timeout.

A recipe may come from an untrusted source, and a pattern such as ``(a|a)*$`` can take exponential time. Python's
``re`` has no timeout; the package ``regex`` matches the same patterns and has one.
"""

import re
from collections.abc import Collection
from time import monotonic

import regex

__all__ = ["LONGEST", "SECONDS", "PatternError", "check_pattern", "matching"]

LONGEST = 1_000
"""Maximum length of a pattern, in characters."""
SECONDS, SECONDS_PER_NAME = 1.0, 1e-3
"""Timeout for matching a pattern, in seconds: a constant, plus an amount per name."""


class PatternError(ValueError):
    """Error for a pattern that cannot be used; its text is a rule, as in ``Problem``."""


def check_pattern(pattern: str) -> None:
    """Check that a pattern can be compiled.

    Raises:
        PatternError: If it is not a valid regular expression, or longer than ``LONGEST`` characters.
    """
    if len(pattern) > LONGEST:
        raise PatternError(f"must be a regular expression of at most {LONGEST:,} characters")
    try:
        re.compile(pattern)
        regex.compile(pattern)
    except (re.error, regex.error, OverflowError, RecursionError) as error:
        raise PatternError(f"must be a valid regular expression ({error})") from error


def matching(pattern: str, names: Collection[str]) -> dict[str, regex.Match[str]]:
    """Return the match of a pattern in each name, searched for at any position.

    Args:
        pattern: Regular expression.
        names: Names of parameters, weights, layers or files.

    Returns:
        First match by name; names without a match are left out.

    Raises:
        PatternError: If the pattern is not a valid regular expression, or matching exceeds the timeout.
    """
    check_pattern(pattern)
    compiled, matches = regex.compile(pattern), {}
    until = monotonic() + SECONDS + SECONDS_PER_NAME * len(names)
    for name in names:
        try:
            if match := compiled.search(name, timeout=max(until - monotonic(), SECONDS_PER_NAME)):
                matches[name] = match
        except TimeoutError as error:
            raise PatternError(
                "must be a regular expression that is matched within seconds, without a repeat inside a repeat as in "
                "(a|a)*"
            ) from error
    return matches
