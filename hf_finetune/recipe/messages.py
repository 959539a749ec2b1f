"""Conversion of pydantic's errors to problems: place, rule, value and repair."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from hf_finetune.errors import InputError, Problem, short_repr, suggestion
from hf_finetune.fields.base import Part
from hf_finetune.fields.choice import option_at
from hf_finetune.fields.types import NON_EMPTY, STAGE_NAME_PATTERN
from hf_finetune.recipe.schema import SingleTaskRecipe
from hf_finetune.recipe.schema_paths import format_location, known_fields, meaning

__all__ = ["problems_of"]

RULES = {
    "bool_type": "must be true or false",
    "dict_type": "must be a mapping",
    "finite_number": "must be a finite number",
    "float_type": "must be a number",
    "greater_than": "must be above {gt}",
    "greater_than_equal": "must be at least {ge}",
    "int_type": "must be a whole number",
    "less_than": "must be below {lt}",
    "less_than_equal": "must be at most {le}",
    "literal_error": "must be {expected}",
    "model_type": "must be a mapping of fields",
    "string_too_long": "must have at most {max_length} characters",
    "string_type": "must be text",
    "too_short": "must not be empty",
    "tuple_type": "must be a list",
}
"""Rule by pydantic error type; the braces are filled from the context of the error."""

PATTERN_RULES = {
    NON_EMPTY: "must not be empty",
    STAGE_NAME_PATTERN: "must start with a letter or digit and contain only letters, digits, '.', '_' and '-'",
}
"""Rule by pattern of a text field."""


def problems_of(error: ValidationError, root: type[Part] = SingleTaskRecipe) -> list[Problem]:
    """Return every error of a recipe as a problem, in pydantic's order.

    Args:
        error: Validation error of the recipe.
        root: Class of the recipe: ``SingleTaskRecipe`` or ``MultiTaskRecipe``.
    """
    return [problem for detail in error.errors(include_url=False) for problem in _problems(detail, root)]


def _problems(detail: ErrorDetails, root: type[Part]) -> Iterator[Problem]:
    kind, location, value = detail["type"], detail["loc"], detail["input"]
    context: Mapping[str, Any] = detail.get("ctx", {})
    place = format_location(location)
    cause = context.get("error")
    option = option_at(location[-2]) if len(location) > 1 else None
    options = option.options_with_field(str(location[-1])) if option else []
    if option and kind == "literal_error" and location[-1] == option.discriminator:
        context = {"expected": f"{', '.join(map(repr, options[:-1]))} or {options[-1]!r}"}
    if isinstance(cause, InputError):
        for problem in cause.problems:
            yield Problem(problem.place or place, problem.rule, problem.value, problem.repair)
    elif kind == "missing":
        yield Problem(place, "must be set", repair=meaning(location, root))
    elif kind == "extra_forbidden" and option and options:
        rule = f"must not be set unless {option.discriminator} is {' or '.join(options)}"
        yield Problem(place, rule, short_repr(value))
    elif kind == "extra_forbidden":
        yield Problem(
            place,
            "must be a known field",
            repair=suggestion(str(location[-1]), known_fields(location[:-1], root)),
        )
    elif kind == "invalid_key":
        yield Problem(
            format_location(location[:-1]),
            "must have text as keys",
            short_repr(value),
            "Put the key in quotes.",
        )
    elif kind == "string_pattern_mismatch" and context["pattern"] in PATTERN_RULES:
        yield Problem(place, PATTERN_RULES[context["pattern"]], short_repr(value))
    elif kind == "too_short" and value:
        return  # pydantic counts valid entries only; each invalid entry has an error of its own
    elif kind in RULES:
        rule = RULES[kind].format_map({name: _short_number(bound) for name, bound in context.items()})
        yield Problem(place, rule, short_repr(value), _repair(kind, value, context))
    else:
        yield Problem(place, _fallback(detail["msg"]), short_repr(value))


def _repair(kind: str, value: Any, context: Mapping[str, Any]) -> str:
    if kind == "string_type" and not isinstance(value, list | tuple | dict | None):
        return "Put it in quotes."
    if (
        kind in ("int_type", "float_type")
        and isinstance(value, str)
        and re.fullmatch(r"[-+.\deE]*\d[-+.\deE]*", value)
    ):
        return "Remove the quotes."
    if kind == "literal_error" and isinstance(value, str):
        close = suggestion(value, re.findall(r"'([^']*)'", context["expected"]))
        return close if close.startswith("Nearest") else ""
    return ""


def _short_number(bound: Any) -> Any:
    """Convert 0.0 to 0: pydantic reports the bounds of a float field as floats."""
    return int(bound) if isinstance(bound, float) and bound.is_integer() else bound


def _fallback(message: str) -> str:
    """Return a rule based on pydantic's message, for error types of other pydantic versions."""
    return re.sub(r"^.*?\bshould\b", "must", message) if "should" in message else f"must be valid ({message})"
