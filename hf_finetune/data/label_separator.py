"""Detection of separators in label columns with several labels per cell."""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["LikelySeparator", "likely_separator", "split_cell"]

UNAMBIGUOUS_SEPARATORS = (",", ";", "|", "\t", "\n")
"""Separators that rarely occur in class names."""
AMBIGUOUS_SEPARATORS = (" ", "/", "+", "&")
"""Separators that also occur in class names, such as 'hot dog'."""
MIN_KNOWN_FRACTION = 0.5
"""Minimum fraction of the separated cells whose parts must all occur elsewhere."""
DECIMAL = re.compile(r"[-+]?\d+(,\d+)?")


@dataclass(frozen=True)
class LikelySeparator:
    """Probable separator of several labels in a cell.

    Attributes:
        separator: Text between the labels.
        example: Most frequent cell whose labels occur elsewhere.
        parts: Labels in that cell.
        rows: Number of rows whose cell contains the separator between labels.
        is_certain: Whether the parts are certainly labels.
    """

    separator: str
    example: str
    parts: tuple[str, ...]
    rows: int
    is_certain: bool


def split_cell(cell: str, separator: str) -> list[str]:
    """Return the distinct non-empty labels of a cell, without surrounding white space."""
    return list(dict.fromkeys(part.strip() for part in cell.split(separator) if part.strip()))


def likely_separator(cells: Iterable[str]) -> LikelySeparator | None:
    """Find a separator whose parts recur as labels.

    A part recurs if it is also a whole cell, or occurs in at least two different cells. The parts of a name such as
    'Salt, pepper' do not, so it stays one class. If each position has a separate set of values ('Newark, NJ',
    'Newark, DE', 'Dover, DE'), the cells may be names or sets of labels, and the separator is not certain.

    Args:
        cells: Cells of the column.

    Returns:
        The separator; None if every cell seems to be the name of one class.
    """
    counts = Counter(cell.strip() for cell in cells)
    for separator in (*UNAMBIGUOUS_SEPARATORS, *AMBIGUOUS_SEPARATORS):
        separated = {cell: split_cell(cell, separator) for cell in counts if separator in cell}
        separated = {cell: parts for cell, parts in separated.items() if len(parts) > 1}
        if not separated or (separator == "," and all(DECIMAL.fullmatch(cell) for cell in counts)):
            continue
        likely = _rate_separator(separator, separated, counts)
        if likely is not None:
            return likely
    return None


def _rate_separator(
    separator: str, separated: dict[str, list[str]], counts: Counter[str]
) -> LikelySeparator | None:
    single_labels = {cell.strip(f" {separator}") for cell in counts if cell not in separated}
    uses = Counter(part for parts in separated.values() for part in parts)
    whole = [cell for cell, parts in separated.items() if single_labels.issuperset(parts)]
    known = [
        cell
        for cell, parts in separated.items()
        if all(part in single_labels or uses[part] > 1 for part in parts)
    ]
    recurring = len(separated) > 1 and len(known) >= MIN_KNOWN_FRACTION * len(separated)
    if separator in AMBIGUOUS_SEPARATORS and not whole:
        # the words of class names recur too, so many more combinations than parts are required
        recurring = recurring and len(separated) > 2 * len(uses)
    if not whole and not recurring:
        return None
    example = max(whole or known, key=lambda cell: counts[cell])
    return LikelySeparator(
        separator=separator,
        example=example,
        parts=tuple(separated[example]),
        rows=sum(counts[cell] for cell in separated),
        is_certain=_is_certain(separator, separated, whole, len(uses)),
    )


def _is_certain(separator: str, separated: dict[str, list[str]], whole: list[str], parts: int) -> bool:
    """Return whether cells certainly contain several labels."""
    if separator in UNAMBIGUOUS_SEPARATORS:
        return bool(whole) or not _positional(separated)
    # all parts of all cells are also whole cells, in more combinations than a few class names would have
    return len(whole) == len(separated) and len(separated) >= max(3, parts)


def _positional(separated: dict[str, list[str]]) -> bool:
    """Return whether all cells have equally many parts, and no part occurs at two positions."""
    if len({len(parts) for parts in separated.values()}) > 1:
        return False
    columns = [set(values) for values in zip(*separated.values(), strict=True)]
    return sum(map(len, columns)) == len(set().union(*columns))
