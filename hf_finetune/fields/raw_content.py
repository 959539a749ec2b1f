"""Access to the content of a recipe that is not validated yet."""

from collections.abc import Iterable, Mapping
from typing import Any

from hf_finetune.fields.base import Part

__all__ = ["changed_fields", "mapping"]


def mapping(value: Any) -> Mapping[str, Any]:
    """Return the value if it is a mapping, else an empty mapping."""
    return value if isinstance(value, Mapping) else {}


def changed_fields(content: Mapping[str, Any], part: type[Part], names: Iterable[str]) -> dict[str, Any]:
    """Return the values of fields that differ from their defaults.

    Args:
        content: Fields of a part of a recipe.
        part: Class of the part.
        names: Names of the fields to compare.
    """
    values = {name: content[name] for name in names if name in content}
    return {
        name: value
        for name, value in values.items()
        if (tuple(value) if isinstance(value, list) else value) != part.model_fields[name].default
    }
