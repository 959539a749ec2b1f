"""Lookup of a recipe location in the schema: its type, its fields and their descriptions."""

from collections.abc import Sequence
from typing import Annotated, Any, get_args, get_origin

from pydantic.fields import FieldInfo

from hf_finetune.fields.base import PER_GROUP, Part
from hf_finetune.fields.choice import Choice, alternatives, is_tag
from hf_finetune.recipe.schema import SingleTaskRecipe

__all__ = ["known_fields", "meaning", "part_in", "place_of", "step_into"]


def place_of(location: Sequence[str | int]) -> str:
    """Return a location as text, such as ``stages[1].lr``; the root is ``recipe``."""
    steps = [step for step in location if not is_tag(step)]
    words = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps)
    return words.removeprefix(".") or "recipe"


def part_in(annotation: Any, step: str | int | None = None) -> type[Part] | None:
    """Return the class of the part that a field holds: ``BestSpec`` for ``BestSpec | None``; None if it holds none.

    Args:
        annotation: Type of the field.
        step: Name of a field; if the type holds several parts, one with this field is preferred.
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
    return [option for part in parts for option in alternatives(part)]


def step_into(annotation: Any, step: str | int) -> Any:
    """Return the type one step deeper in the schema; None if the schema has nothing there.

    Args:
        annotation: Type of a field, or class of a part.
        step: Name of a field, key of a mapping, or index in a list.
    """
    if is_tag(step):
        return annotation
    if part := part_in(annotation, step) if get_origin(annotation) not in (tuple, dict) else None:
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
    part = part_in(_type_at(location[:-1], root), location[-1])
    if part and issubclass(part, Choice) and location[-1] == part.discriminator:
        return part.meaning()
    field = _fields(part).get(str(location[-1])) if part else None
    return (field.description or "") if field else ""


def _type_at(location: Sequence[str | int], root: type[Part]) -> Any:
    annotation: Any = root
    for step in location:
        annotation = step_into(annotation, step)
    return annotation
