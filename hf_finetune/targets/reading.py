"""Labels as they are read from data, before they are encoded: class names, numbers, lists of class names."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["LABEL_LOCATION", "LabelSummary", "flat_labels", "is_continuous", "rows_where", "summarize_labels"]

LABEL_LOCATION = "The label column"
"""Location of problems with labels."""
_MAX_FLOAT_CLASSES = 50
"""Maximum number of distinct whole numbers, stored as floats, that are interpreted as classes."""


@dataclass(frozen=True)
class LabelSummary:
    """Types of labels.

    Attributes:
        items: The labels; of lists, their elements.
        are_lists: Whether the labels are lists.
        are_numbers: Whether all items are numbers; booleans are not.
        has_floats: Whether an item is a float.
        has_fractions: Whether an item is a float with a fractional part.
    """

    items: tuple[Any, ...]
    are_lists: bool
    are_numbers: bool
    has_floats: bool
    has_fractions: bool


def summarize_labels(labels: Sequence[Any]) -> LabelSummary:
    """Return the types of labels.

    Args:
        labels: Labels without missing ones, as ``read_labels`` returns them; either all or none are lists.
    """
    items = tuple(item for item in flat_labels(labels) if item is not None)
    floats = [item for item in items if isinstance(item, float)]
    return LabelSummary(
        items=items,
        are_lists=any(isinstance(label, list) for label in labels),
        are_numbers=all(isinstance(item, int | float) and not isinstance(item, bool) for item in items),
        has_floats=bool(floats),
        has_fractions=any(not item.is_integer() for item in floats),
    )


def flat_labels(labels: Iterable[Any]) -> list[Any]:
    """Return the labels, with the elements of a list in its place."""
    return [item for label in labels for item in (label if isinstance(label, list) else [label])]


def rows_where(
    values: Mapping[str, Sequence[Any]], ids: Mapping[str, Sequence[str]], condition: Callable[[Any], bool]
) -> list[str]:
    """Return the ids of the examples whose label satisfies a condition.

    Args:
        values: Labels, or their cells, of each split.
        ids: Id of each example.
        condition: Function of a label.
    """
    return [
        row
        for split in values
        for value, row in zip(values[split], ids[split], strict=True)
        if condition(value)
    ]


def is_continuous(labels: LabelSummary) -> bool:
    """Return whether labels are numbers with fractions, or floats of many values."""
    if labels.are_lists or not labels.are_numbers or not labels.has_floats:
        return False
    return labels.has_fractions or len({float(item) for item in labels.items}) > _MAX_FLOAT_CLASSES
