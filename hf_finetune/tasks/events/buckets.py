"""Buckets of numbers (gaps, amounts) as tokens: their edges, and the patterns by which a tokenizer recognizes them."""

from collections.abc import Iterator, Sequence

import numpy as np

__all__ = ["at_least", "bucket_edges", "format_number", "replacements"]

_DECIMALS = 4
"""Decimals of a number in the text of a history: 0.0001 days are 9 seconds."""


def format_number(value: float) -> str:
    """Return a number as text without an exponent and without trailing zeros.

    Args:
        value: Number, of which four decimals are written: ``11.77`` for 11.770001.
    """
    text = f"{value:.{_DECIMALS}f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def bucket_edges(values: Sequence[float], count: int) -> list[float]:
    """Return the lower edges of buckets that contain about equal numbers of values.

    Args:
        values: Numbers of at least 0, of the training split.
        count: Largest number of buckets; equal quantiles are joined, so that there may be fewer.

    Returns:
        Increasing lower edges of all buckets but the first, which begins at 0.
    """
    if not len(values):
        return []
    quantiles = np.quantile(np.asarray(values, dtype=np.float64), np.arange(1, count) / count)
    rounded = np.unique(np.round(quantiles, _DECIMALS))
    return [float(edge) for edge in rounded if edge > 0]


def replacements(name: str, edges: Sequence[float]) -> Iterator[tuple[str, str]]:
    """Yield the pattern and the token of each bucket, in the order in which a tokenizer has to apply them.

    Args:
        name: Name of the quantity; ``NAME=NUMBER`` becomes ``NAME-BUCKET``, a negative number ``NAME-negative``.
        edges: Increasing lower edges of all buckets but the first.
    """
    yield _word(name, r"-\d+(?:\.\d+)?"), f"{name}-negative"
    for bucket, edge in reversed(list(enumerate(edges, 1))):
        yield _word(name, at_least(edge)), f"{name}-{bucket}"
    yield _word(name, r"\d+(?:\.\d+)?"), f"{name}-0"


def at_least(edge: float) -> str:
    """Return a regular expression of the decimal numbers, without sign and exponent, that are at least ``edge``.

    Args:
        edge: Number of at least 0, of which four decimals count.
    """
    whole, _, fraction = format_number(edge).partition(".")
    tail = r"(?:\.\d+)?"
    larger = [
        f"{whole[:place]}{above}\\d{{{len(whole) - place - 1}}}{tail}" for place, above in _above(whole)
    ]
    longer = f"[1-9]\\d{{{len(whole)},}}{tail}"
    if fraction:
        equal = [f"{whole}\\.{fraction[:place]}{above}\\d*" for place, above in _above(fraction)]
        equal.append(f"{whole}\\.{fraction}\\d*")
    else:
        equal = [f"{whole}{tail}"]
    return "|".join([longer, *larger, *equal])


def _above(digits: str) -> Iterator[tuple[int, str]]:
    """Yield the place of each digit that is not 9, and a pattern of the digits above it."""
    for place, digit in enumerate(digits):
        if digit != "9":
            yield place, f"[{int(digit) + 1}-9]"


def _word(name: str, number: str) -> str:
    return rf"(?<!\S){name}=(?:{number})(?!\S)"
