"""Overrides of recipe fields, as ``KEY=VALUE`` with a dotted path."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, get_args, get_origin

from hf_finetune.errors import InputError, Problem, short_repr, suggestion
from hf_finetune.fields.base import Part
from hf_finetune.recipe.schema import SingleTaskRecipe
from hf_finetune.recipe.schema_paths import descend, find_part, known_fields
from hf_finetune.recipe.yaml_text import read_yaml

__all__ = ["Override", "apply_override", "read_override"]


@dataclass(frozen=True)
class Override:
    """Field of a recipe and its new value.

    Attributes:
        text: Override as the user wrote it.
        path: Field names and list indices from the root of the recipe to the field.
        value: New value of the field.
    """

    text: str
    path: tuple[str, ...]
    value: Any


def read_override(text: str, root: type[Part] = SingleTaskRecipe) -> Override:
    """Parse an override and check that its field is in the schema.

    Args:
        text: ``stages.0.lr=0.02``, or ``stages[0].lr=0.02``. The value is YAML; an empty one is null.
        root: Class of the recipe: ``SingleTaskRecipe`` or ``MultiTaskRecipe``.

    Raises:
        InputError: If ``=`` is missing, the field is unknown, or the value is not YAML.
    """
    key, equals, value = text.partition("=")
    key = key.strip()
    if not equals or not key:
        raise InputError(Problem(text, "must have the form KEY=VALUE", repair="For example seed=1."))
    path = tuple(re.sub(r"\[(\d+)\]", r".\1", key).split("."))
    annotation: Any = root
    for depth, step in enumerate(path):
        inner = descend(annotation, step)
        if inner is None:
            raise InputError(_unknown(text, annotation, path[:depth], step, root))
        annotation = inner
    try:
        content, repeated = read_yaml(value, text)
    except InputError as error:
        repair = error.problems[0].repair
        raise InputError(Problem(text, "must have a valid YAML value", short_repr(value), repair)) from error
    if repeated:
        raise InputError(repeated)
    return Override(text, path, content)


def apply_override(
    recipe: Mapping[str, Any], override: Override, root: type[Part] = SingleTaskRecipe
) -> dict[str, Any]:
    """Return a copy of a recipe in which one field has a new value.

    Missing parts are created, and shorthands are expanded: ``model: NAME`` becomes ``model: {path: NAME}`` before
    ``model.dropout`` is set.

    Args:
        recipe: Recipe as plain mappings and lists.
        override: Field and its new value.
        root: Class of the recipe: ``SingleTaskRecipe`` or ``MultiTaskRecipe``.

    Raises:
        InputError: If an index is past the end of its list, or a value on the path has no such field or entry.
    """
    changed_recipe: dict[str, Any] = _set_value(recipe, root, override, 0)
    return changed_recipe


def _set_value(value: Any, annotation: Any, override: Override, depth: int) -> Any:
    if depth == len(override.path):
        return override.value
    step = override.path[depth]
    expanded = _expand(value, annotation, step)
    inner = descend(annotation, step)
    if isinstance(expanded, Mapping):
        return {**expanded, step: _set_value(expanded.get(step), inner, override, depth + 1)}
    place = ".".join(override.path[:depth])
    if not isinstance(expanded, list | tuple) or not step.isdecimal():
        rule = f"must refer to an existing field or entry of {place}"
        raise InputError(Problem(override.text, rule, short_repr(value)))
    if int(step) >= len(expanded):
        repair = (
            f"{place} has {len(expanded)} {'entry' if len(expanded) == 1 else 'entries'}; indices start at 0."
        )
        raise InputError(Problem(override.text, f"must refer to an existing entry of {place}", step, repair))
    entries = list(expanded)
    entries[int(step)] = _set_value(entries[int(step)], inner, override, depth + 1)
    return entries


def _expand(value: Any, annotation: Any, step: str) -> Any:
    """Return a value with its shorthand expanded, so that a field inside it can be set."""
    if _is_list(annotation):
        return [] if value is None else [value] if isinstance(value, str) else value
    part = find_part(annotation, step)
    if isinstance(value, Part):
        value = {field: getattr(value, field) for field in value.model_fields_set}
    if part and part.broadcasts_value and value and not _sets_a_field_of(value, part):
        return dict.fromkeys(part.model_fields, value)
    if part and part.shorthand and isinstance(value, str | int | float | PurePath):
        return {part.shorthand: value}
    return {} if value is None else value


def _sets_a_field_of(value: Any, part: type[Part]) -> bool:
    return isinstance(value, Mapping) and any(field in value for field in part.model_fields)


def _is_list(annotation: Any) -> bool:
    return any(get_origin(option) is tuple for option in (annotation, *get_args(annotation)))


def _unknown(text: str, annotation: Any, parents: Sequence[str], step: str, root: type[Part]) -> Problem:
    location = [int(key) if key.isdecimal() else key for key in parents]
    if known := known_fields(location, root) if not _is_list(annotation) else []:
        return Problem(text, "must set a known field", short_repr(step), suggestion(step, known))
    if _is_list(annotation):
        return Problem(
            text,
            f"must have an integer index after {'.'.join(parents)}",
            short_repr(step),
            "Indices start at 0.",
        )
    return Problem(text, f"must end at {'.'.join(parents)}, which has no fields", short_repr(step))
