"""Types of the values of recipe fields, each with its validator and its JSON Schema."""

import re
from collections.abc import Mapping
from math import isfinite
from pathlib import PurePath
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, WithJsonSchema

from hf_finetune.errors import InputError, Problem, shown
from hf_finetune.fields.patterns import PatternError, check_pattern

__all__ = [
    "FILLED",
    "STAGE_NAME",
    "Argument",
    "Costs",
    "Count",
    "CountFromZero",
    "Encoding",
    "FoldText",
    "Folds",
    "Location",
    "NameOrNames",
    "Pattern",
    "Patterns",
    "RateRange",
    "Seed",
    "Selector",
    "Separator",
    "Text",
    "Texts",
    "Views",
    "Warmup",
    "Workers",
    "as_tuple",
]

FILLED = r"\S"
STAGE_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
SEPARATORS = {"comma": ",", "semicolon": ";", "tab": "\t", "\\t": "\t", "pipe": "|"}
"""Separators by name, for characters that are hard to write in YAML or in a shell."""


def _refuse(rule: str, value: Any, repair: str = "") -> InputError:
    """Return the error of a failed value check. Its place in the recipe is filled in later."""
    return InputError(Problem("", rule, shown(value), repair))


def _whole(value: Any) -> Any:
    """Convert 1e3 to 1000: YAML has no other short notation for large integers."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _location(value: Any) -> Any:
    return str(value) if isinstance(value, PurePath) else value


def as_tuple(value: Any) -> Any:
    """Convert a list, as YAML returns it, to a tuple; return any other value unchanged."""
    return tuple(value) if isinstance(value, list) else value


def _texts(value: Any) -> Any:
    return (value,) if isinstance(value, str) else as_tuple(value)


def _name_or_names(value: Any) -> Any:
    names = as_tuple(value)
    if all(
        isinstance(name, str) and name.strip() for name in (names if isinstance(names, tuple) else [names])
    ):
        return names
    raise _refuse("must be the name of a column or a list of names", value)


def _selector(value: Any) -> Any:
    parts = _texts(value)
    if isinstance(parts, tuple) and parts and all(isinstance(part, str) and part.strip() for part in parts):
        return as_tuple(value)
    raise _refuse("must be a selector or a list of selectors", value, "For example head, last:3, all.")


def _warmup(value: Any) -> Any:
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    if isinstance(value, float) and 0 <= value < 1:
        return value
    raise _refuse("must be a whole number of steps, or a fraction below 1 of the stage's steps", value)


def _views(value: Any) -> Any:
    number = _whole(value)
    if number == "auto" or (isinstance(number, int) and not isinstance(number, bool) and number >= 1):
        return number
    raise _refuse("must be a whole number of at least 1, or auto", value)


def _workers(value: Any) -> Any:
    number = _whole(value)
    if number == "auto" or (isinstance(number, int) and not isinstance(number, bool) and number >= 0):
        return number
    raise _refuse("must be a whole number of at least 0, or auto", value)


def _fold(value: Any) -> Any:
    match = re.fullmatch(r"([1-9]\d*)/([1-9]\d*)", value) if isinstance(value, str) else None
    if match is None or not 2 <= int(match[2]) >= int(match[1]):
        raise _refuse("must be the number of a fold and the number of folds", value, "For example 1/5.")
    return value


def _separator(value: Any) -> Any:
    character = SEPARATORS.get(value, value) if isinstance(value, str) else value
    if isinstance(character, str) and len(character) == 1 and character not in '\r\n"\ufeff\0':
        return character
    raise _refuse("must be one character, or comma, semicolon, tab or pipe", value)


def _encoding(value: Any) -> Any:
    try:
        "a".encode(value)
        return value
    except (TypeError, LookupError, ValueError):
        raise _refuse(
            "must be the name of an encoding that Python knows", value, "For example utf-8, cp1252, gbk."
        ) from None


def _rate_range(value: Any) -> Any:
    ends = as_tuple(value)
    ends = ends if isinstance(ends, tuple) else (ends, ends)
    if len(ends) == 2 and all(_is_finite(end) and end > 0 for end in ends):
        low, high = map(float, ends)
        return (low, high) if isinstance(value, list | tuple) else low
    repair = "For example 1e-5, or [1e-6, 1e-5]."
    raise _refuse(
        "must be a learning rate above 0, or a list of two: nearest the input, nearest the head",
        value,
        repair,
    )


def _is_finite(value: Any) -> bool:
    return type(value) is int or (type(value) is float and isfinite(value))


def _argument(value: Any) -> Any:
    plain = as_tuple(value)
    if isinstance(plain, bool | str) or all(map(_is_finite, plain if isinstance(plain, tuple) else [plain])):
        return plain
    raise _refuse("must be a finite number, true, false, text, or a list of finite numbers", value)


def _regular_expression(value: Any) -> Any:
    try:
        check_pattern(value if isinstance(value, str) else "")
    except PatternError as error:
        raise _refuse(str(error), value) from error
    return value


Text = Annotated[str, Field(pattern=FILLED)]
Location = Annotated[str, Field(pattern=FILLED), BeforeValidator(_location)]
Count = Annotated[int, Field(ge=1), BeforeValidator(_whole)]
Folds = Annotated[int, Field(ge=2), BeforeValidator(_whole)]
CountFromZero = Annotated[int, Field(ge=0), BeforeValidator(_whole)]
Seed = Annotated[int, Field(ge=0, le=2**32 - 1), BeforeValidator(_whole)]
RATE = {"type": "number", "exclusiveMinimum": 0}
TEXT_OR_TEXTS = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}

Texts = Annotated[tuple[Text, ...], BeforeValidator(_texts), WithJsonSchema(TEXT_OR_TEXTS)]
NameOrNames = Annotated[str | tuple[str, ...], BeforeValidator(_name_or_names), WithJsonSchema(TEXT_OR_TEXTS)]
Pattern = Annotated[str, BeforeValidator(_regular_expression)]
Patterns = Annotated[
    tuple[Pattern, ...],
    BeforeValidator(_texts),
    WithJsonSchema(TEXT_OR_TEXTS),
]
Selector = Annotated[
    str | tuple[str, ...],
    BeforeValidator(_selector),
    WithJsonSchema(
        {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]}
    ),
]
Warmup = Annotated[
    int | float,
    BeforeValidator(_warmup),
    WithJsonSchema(
        {"anyOf": [{"type": "integer", "minimum": 0}, {"type": "number", "minimum": 0, "maximum": 1}]}
    ),
]
Views = Annotated[
    int | str,
    BeforeValidator(_views),
    WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 1}, {"const": "auto"}]}),
]
Workers = Annotated[
    int | str,
    BeforeValidator(_workers),
    WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 0}, {"const": "auto"}]}),
]
RateRange = Annotated[
    float | tuple[float, float],
    BeforeValidator(_rate_range),
    WithJsonSchema({"anyOf": [RATE, {"type": "array", "items": RATE, "minItems": 2, "maxItems": 2}]}),
]
Separator = Annotated[str, BeforeValidator(_separator), WithJsonSchema({"type": "string", "minLength": 1})]
Encoding = Annotated[str, BeforeValidator(_encoding), WithJsonSchema({"type": "string", "minLength": 1})]
FoldText = Annotated[
    str, BeforeValidator(_fold), WithJsonSchema({"type": "string", "pattern": r"^[1-9]\d*/[1-9]\d*$"})
]
Argument = Annotated[
    bool | int | float | str | tuple[int | float, ...],
    BeforeValidator(_argument),
    WithJsonSchema({"type": ["number", "boolean", "string", "array"], "items": {"type": "number"}}),
]


def _costs(value: Any) -> Any:
    """Return the costs with a bare number for a row as the default of the row, and with class names as text."""
    if not isinstance(value, Mapping):
        return value
    rows = {
        str(true): {"default": row} if isinstance(row, int | float) else row for true, row in value.items()
    }
    return {
        true: {str(decision): cost for decision, cost in row.items()} if isinstance(row, Mapping) else row
        for true, row in rows.items()
    }


Cost = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Costs = Annotated[dict[str, dict[str, Cost]], BeforeValidator(_costs)]
