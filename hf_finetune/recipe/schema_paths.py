"""Lookup of a recipe location in the schema: its type, its fields and their descriptions."""

from collections.abc import Sequence
from typing import Annotated, Any, get_args, get_origin

from pydantic.fields import FieldInfo

from hf_finetune.fields.base import PER_GROUP, Part
from hf_finetune.fields.choice import Choice, is_tag, options_of
from hf_finetune.recipe.schema import SingleTaskRecipe

__all__ = ["descend", "find_part", "format_location", "known_fields", "meaning"]


def format_location(location: Sequence[str | int]) -> str:
    """Return a location as text, such as ``stages[1].lr``; the root is ``recipe``."""
    steps = [step for step in location if not is_tag(step)]
    words = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps)
    return words.removeprefix(".") or "recipe"


def find_part(annotation: Any, step: str | int | None = None) -> type[Part] | None:
    """Return the class of the part in a field's type: ``BestSpec`` for ``BestSpec | None``; None if there is none.

    Args:
        annotation: Type of the field.
        step: Name of a field; if the type has several parts, one with this field is preferred.
    """
    candidates = _parts_in(annotation)
    return next((part for part in candidates if step in _fields(part)), candidates[0] if candidates else None)


def _fields(part: type[Part]) -> dict[str, FieldInfo]:
    """Return the fields of a part by their names in a recipe (alias if there is one)."""
    return {field.alias or name: field for name, field in part.model_fields.items()}


def _parts_in(annotation: Any) -> list[type[Part]]:
    candidates = [
        get_args(option)[0] if get_origin(option) is Annotated else option
        for option in (annotation, *get_args(annotation))
    ]
    parts = [option for option in candidates if isinstance(option, type) and issubclass(option, Part)]
    return [option for part in parts for option in options_of(part)]


def descend(annotation: Any, step: str | int) -> Any:
    """Return the type of a field, entry or item of a type in the schema; None if it does not exist.

    Args:
        annotation: Type of a field, or class of a part.
        step: Name of a field, key of a mapping, or index in a list.
    """
    if is_tag(step):
        return annotation
    if part := find_part(annotation, step) if get_origin(annotation) not in (tuple, dict) else None:
        field = _fields(part).get(str(step))
        return field.annotation if field is not None else None
    for option in (annotation, *get_args(annotation)):
        if get_origin(option) is tuple and (isinstance(step, int) or step.isdecimal()):
            return get_args(option)[0]
        if get_origin(option) is dict:
            return get_args(option)[1]
    return None


def known_fields(location: Sequence[str | int], root: type[Part] = SingleTaskRecipe) -> list[str]:
    """Return the field names of the part at a location; empty if there is no part."""
    candidates = _parts_in(_type_at(location, root))
    if location and location[-1] == PER_GROUP:
        candidates = [part for part in candidates if part.broadcasts_value]
    return list(dict.fromkeys(field for part in candidates for field in _fields(part)))


def meaning(location: Sequence[str | int], root: type[Part] = SingleTaskRecipe) -> str:
    """Return the description of the field at a location; empty if there is no such field."""
    part = find_part(_type_at(location[:-1], root), location[-1])
    if part and issubclass(part, Choice) and location[-1] == part.discriminator:
        return part.meaning()
    field = _fields(part).get(str(location[-1])) if part else None
    return (field.description or "") if field else ""


def _type_at(location: Sequence[str | int], root: type[Part]) -> Any:
    annotation: Any = root
    for step in location:
        annotation = descend(annotation, step)
    return annotation
