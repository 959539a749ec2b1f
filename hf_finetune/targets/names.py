"""Names of classes: their text and their order."""

import math
from typing import Any

__all__ = ["class_order", "label_text"]


def label_text(label: Any) -> str:
    """Return a label as a class name; 1.0 and 1 are the same class."""
    return str(int(label)) if isinstance(label, float) and label.is_integer() else str(label)


def class_order(name: str) -> tuple[bool, float, str]:
    """Return the sort key of a class name: numbers by value, then other names alphabetically; '2' is before '10'."""
    try:
        number = float(name)
    except ValueError:
        number = math.nan
    return (False, number, name) if math.isfinite(number) else (True, 0.0, name)
