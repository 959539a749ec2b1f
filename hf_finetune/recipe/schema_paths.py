"""Where in the schema a place of a recipe is: which fields are known there, and what a field means."""

from collections.abc import Sequence
from typing import Annotated, Any, get_args, get_origin

from pydantic.fields import FieldInfo

from hf_finetune.recipe.schema import Recipe
from hf_finetune.recipe.strict_model import PER_GROUP, PLAIN, Part

__all__ = ["known_fields", "meaning", "part_in", "place_of", "step_into"]


def place_of(location: Sequence[str | int]) -> str:
    """Write a location as people read it: ``stages[1].lr``; the root is ``recipe``."""
    steps = [step for step in location if step not in (PLAIN, PER_GROUP)]
    words = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps)
    return words.removeprefix(".") or "recipe"


def part_in(annotation: Any, step: str | int | None = None) -> type[Part] | None:
    """Give the part that a field holds: ``BestSpec`` for ``BestSpec | None``; None if it holds none.

    Args:
        annotation: Type of the field.
        step: Of several parts, prefer one that has this field.
    """
    found = _parts_in(annotation)
    return next((part for part in found if step in _fields(part)), found[0] if found else None)


def _fields(part: type[Part]) -> dict[str, FieldInfo]:
    """Return the fields of a part by the names that they have in a recipe."""
    return {field.alias or name: field for name, field in part.model_fields.items()}


def _parts_in(annotation: Any) -> list[type[Part]]:
    candidates = [
        get_args(one)[0] if get_origin(one) is Annotated else one
        for one in (annotation, *get_args(annotation))
    ]
    return [one for one in candidates if isinstance(one, type) and issubclass(one, Part)]


def step_into(annotation: Any, step: str | int) -> Any:
    """Give the type one step deeper; None where the schema has nothing there.

    Args:
        annotation: Type of a field, or a part of the recipe.
        step: Name of a field, key of a mapping, or index in a list.
    """
    if step in (PLAIN, PER_GROUP):
        return annotation
    if part := part_in(annotation, step) if get_origin(annotation) not in (tuple, dict) else None:
        field = _fields(part).get(str(step))
        return field.annotation if field is not None else None
    for one in (annotation, *get_args(annotation)):
        if get_origin(one) is tuple and (isinstance(step, int) or step.isdecimal()):
            return get_args(one)[0]
        if get_origin(one) is dict:
            return get_args(one)[1]
    return None


def known_fields(location: Sequence[str | int], root: type[Part] = Recipe) -> list[str]:
    """List the fields of the part of a recipe at a location; none where there is no part."""
    return [field for part in _parts_in(_type_at(location, root)) for field in _fields(part)]


def meaning(location: Sequence[str | int], root: type[Part] = Recipe) -> str:
    """Give the description of the field at a location; empty where there is no field."""
    part = part_in(_type_at(location[:-1], root), location[-1])
    field = _fields(part).get(str(location[-1])) if part else None
    return (field.description or "") if field else ""


def _type_at(location: Sequence[str | int], root: type[Part]) -> Any:
    annotation: Any = root
    for step in location:
        annotation = step_into(annotation, step)
    return annotation
