"""Access to the content of a recipe before validation."""

from collections.abc import Mapping
from typing import Any

__all__ = ["as_mapping"]


def as_mapping(value: Any) -> Mapping[str, Any]:
    """Return the value if it is a mapping, else an empty mapping."""
    return value if isinstance(value, Mapping) else {}
