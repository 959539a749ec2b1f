"""Regular expressions of a recipe: validated when they are read, and matched with a timeout.

A recipe may come from an untrusted source, and a pattern such as ``(a|a)*$`` can take exponential time. Python's
``re`` has no timeout; the package ``regex`` matches the same patterns and has one.
"""

import re
from collections.abc import Collection
from time import monotonic

import regex

__all__ = ["MAX_PATTERN_LENGTH", "TIMEOUT_SECONDS", "PatternError", "check_pattern", "find_matches"]

MAX_PATTERN_LENGTH = 1_000
"""Maximum length of a pattern, in characters."""
TIMEOUT_SECONDS = 1.0
"""Timeout for matching a pattern, without the part that depends on the number of names."""
TIMEOUT_SECONDS_PER_NAME = 1e-3
"""Time that each name adds to the timeout."""


class PatternError(ValueError):
    """Error for a pattern that cannot be used; its text is a rule, as in ``Problem``."""


def check_pattern(pattern: str) -> None:
    """Check that a pattern can be compiled.

    Raises:
        PatternError: If it is not a valid regular expression, or longer than ``MAX_PATTERN_LENGTH`` characters.
    """
    if len(pattern) > MAX_PATTERN_LENGTH:
        raise PatternError(f"must be a regular expression of at most {MAX_PATTERN_LENGTH:,} characters")
    try:
        re.compile(pattern)
        regex.compile(pattern)
    except (re.error, regex.error, OverflowError, RecursionError) as error:
        raise PatternError(f"must be a valid regular expression ({error})") from error


def find_matches(pattern: str, names: Collection[str]) -> dict[str, regex.Match[str]]:
    """Return the match of a pattern in each name, searched for at any position.

    Args:
        pattern: Regular expression.
        names: Names of parameters, weights, layers or files.

    Returns:
        First match by name, without the names that do not match.

    Raises:
        PatternError: If the pattern is not a valid regular expression, or matching exceeds the timeout.
    """
    check_pattern(pattern)
    compiled = regex.compile(pattern)
    matches = {}
    deadline = monotonic() + TIMEOUT_SECONDS + TIMEOUT_SECONDS_PER_NAME * len(names)
    for name in names:
        try:
            if match := compiled.search(name, timeout=max(deadline - monotonic(), TIMEOUT_SECONDS_PER_NAME)):
                matches[name] = match
        except TimeoutError as error:
            raise PatternError(
                "must be a regular expression that can be matched within seconds, without nested repetition "
                "such as "
                "(a+)*"
            ) from error
    return matches
