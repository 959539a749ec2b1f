"""The content of a recipe as it was read, before anything of it is known to be right."""

from collections.abc import Mapping
from typing import Any

__all__ = ["mapping"]


def mapping(value: Any) -> Mapping[str, Any]:
    """Give a value if it has fields, else one without any."""
    return value if isinstance(value, Mapping) else {}
