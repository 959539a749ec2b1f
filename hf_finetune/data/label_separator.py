"""Whether the cells of a label column hold several labels each, and what separates them."""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["LikelySeparator", "likely_separator", "split_cell"]

STRONG = (",", ";", "|", "\t", "\n")
"""Separators that names of classes seldom contain."""
WEAK = (" ", "/", "+", "&")
"""Separators that stand in names of classes too, such as 'hot dog'."""
MOSTLY = 0.5
"""Fraction of the separated cells whose parts must all be known elsewhere."""
DECIMAL = re.compile(r"[-+]?\d+(,\d+)?")


@dataclass(frozen=True)
class LikelySeparator:
    """A separator that seems to stand between several labels.

    Attributes:
        separator: The text between the parts.
        example: The most frequent cell that holds it.
        parts: Labels in that cell.
        rows: Number of rows whose cell holds it.
        sure: Whether the parts are labels beyond reasonable doubt.
    """

    separator: str
    example: str
    parts: tuple[str, ...]
    rows: int
    sure: bool


def split_cell(cell: str, separator: str) -> list[str]:
    """Return the labels of a cell, without the blanks around them; each once, empty ones left out."""
    return list(dict.fromkeys(part.strip() for part in cell.split(separator) if part.strip()))


def likely_separator(cells: Iterable[str]) -> LikelySeparator | None:
    """Find a separator whose parts recur as labels; None if every cell seems to be the name of one class.

    A part is known if it is a whole cell of its own, or belongs to at least two different cells. Parts of a name such
    as 'Salt, pepper' are neither, and so it stays one class. Cells in which each position has values of its own
    ('Newark, NJ', 'Newark, DE', 'Dover, DE') may be names as well as sets of labels: that is not sure.

    Args:
        cells: The cells of the column.
    """
    counts = Counter(cell.strip() for cell in cells)
    for separator in (*STRONG, *WEAK):
        separated = {cell: split_cell(cell, separator) for cell in counts if separator in cell}
        separated = {cell: parts for cell, parts in separated.items() if len(parts) > 1}
        if not separated or (separator == "," and all(DECIMAL.fullmatch(cell) for cell in counts)):
            continue
        likely = _judge(separator, separated, counts)
        if likely is not None:
            return likely
    return None


def _judge(separator: str, separated: dict[str, list[str]], counts: Counter[str]) -> LikelySeparator | None:
    alone = {cell.strip(f" {separator}") for cell in counts if cell not in separated}
    uses = Counter(part for parts in separated.values() for part in parts)
    whole = [cell for cell, parts in separated.items() if alone.issuperset(parts)]
    known = [
        cell for cell, parts in separated.items() if all(part in alone or uses[part] > 1 for part in parts)
    ]
    recurring = len(separated) > 1 and len(known) >= MOSTLY * len(separated)
    if separator in WEAK and not whole:
        # names made of adjectives and nouns recur too: many more combinations than parts are needed
        recurring = recurring and len(separated) > 2 * len(uses)
    if not whole and not recurring:
        return None
    example = max(whole or known, key=lambda cell: counts[cell])
    return LikelySeparator(
        separator=separator,
        example=example,
        parts=tuple(separated[example]),
        rows=sum(counts[cell] for cell in separated),
        sure=_is_sure(separator, separated, whole, len(uses)),
    )


def _is_sure(separator: str, separated: dict[str, list[str]], whole: list[str], parts: int) -> bool:
    """Return whether cells hold several labels beyond reasonable doubt."""
    if separator in STRONG:
        return bool(whole) or not _positional(separated)
    # all parts of all cells are labels of their own, in more combinations than a name or two
    return len(whole) == len(separated) and len(separated) >= max(3, parts)


def _positional(separated: dict[str, list[str]]) -> bool:
    """Return whether all cells have equally many parts, and no part occurs at two positions."""
    if len({len(parts) for parts in separated.values()}) > 1:
        return False
    columns = [set(values) for values in zip(*separated.values(), strict=True)]
    return sum(map(len, columns)) == len(set().union(*columns))
