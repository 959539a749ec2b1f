"""Types of the values of recipe fields, each with its validator and its JSON Schema."""

import re
from collections.abc import Mapping
from datetime import date
from math import isfinite
from pathlib import PurePath
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, WithJsonSchema

from hf_finetune.errors import InputError, Problem, short_repr
from hf_finetune.fields.durations import format_duration, parse_duration
from hf_finetune.fields.patterns import PatternError, check_pattern
from hf_finetune.fields.times import parse_time

__all__ = [
    "NON_EMPTY",
    "STAGE_NAME_PATTERN",
    "Argument",
    "Costs",
    "Count",
    "CountFromZero",
    "Duration",
    "Encoding",
    "FoldText",
    "Folds",
    "Interval",
    "Location",
    "Moment",
    "NameOrNames",
    "NonEmptyText",
    "Pattern",
    "Patterns",
    "RateRange",
    "SearchValues",
    "Seed",
    "Seeds",
    "Selector",
    "Separator",
    "Texts",
    "Views",
    "Warmup",
    "Workers",
    "as_tuple",
]

NON_EMPTY = r"\S"
"""Pattern of text with at least one character that is not a space."""
STAGE_NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
"""Pattern of stage names, which are also folder names."""
SEPARATORS = {"comma": ",", "semicolon": ";", "tab": "\t", "\\t": "\t", "pipe": "|"}
"""Separators by name, for characters that are hard to write in YAML or in a shell."""


def _value_error(rule: str, value: Any, repair: str = "") -> InputError:
    """Return the error of a failed value check, without a place; ``problems_of`` adds it."""
    return InputError(Problem("", rule, short_repr(value), repair))


def _as_integer(value: Any) -> Any:
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
    raise _value_error("must be the name of a column or a list of names", value)


def _selector(value: Any) -> Any:
    parts = _texts(value)
    if isinstance(parts, tuple) and parts and all(isinstance(part, str) and part.strip() for part in parts):
        return as_tuple(value)
    raise _value_error("must be a selector or a list of selectors", value, "For example head, last:3, all.")


def _warmup(value: Any) -> Any:
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    if isinstance(value, float) and 0 <= value < 1:
        return value
    raise _value_error("must be a whole number of steps, or a fraction below 1 of the stage's steps", value)


def _interval(value: Any) -> Any:
    if _warmup(value) == 0:
        raise _value_error("must be at least 1 step, or a fraction above 0", value)
    return value


def _views(value: Any) -> Any:
    number = _as_integer(value)
    if number == "auto" or (isinstance(number, int) and not isinstance(number, bool) and number >= 1):
        return number
    raise _value_error("must be a whole number of at least 1, or auto", value)


def _workers(value: Any) -> Any:
    number = _as_integer(value)
    if number == "auto" or (isinstance(number, int) and not isinstance(number, bool) and number >= 0):
        return number
    raise _value_error("must be a whole number of at least 0, or auto", value)


def _search_values(value: Any) -> Any:
    if isinstance(value, str) or (isinstance(value, list | tuple) and len(value) > 1):
        return as_tuple(value)
    raise _value_error("must be a range or a list of values", value, "For example log:1e-5..1e-2, or [3, 5].")


def _fold(value: Any) -> Any:
    match = re.fullmatch(r"([1-9]\d*)/([1-9]\d*)", value) if isinstance(value, str) else None
    if match is None or not 2 <= int(match[2]) >= int(match[1]):
        raise _value_error("must be a fold K/N, counted from 1", value, "For example 1/5.")
    return value


def _moment(value: Any) -> Any:
    try:
        parse_time(value)
    except ValueError:
        raise _value_error("must be a date or time in ISO 8601", value, "For example 2024-05-31.") from None
    return value.isoformat() if isinstance(value, date) else str(value)


def _duration(value: Any) -> Any:
    seconds = parse_duration(value)
    if seconds is None:
        raise _value_error(
            "must be a duration above 0, with units d, h, m, s, or a number of seconds",
            value,
            "For example 90s, 20m, 1h30m.",
        )
    return format_duration(seconds)


def _separator(value: Any) -> Any:
    character = SEPARATORS.get(value, value) if isinstance(value, str) else value
    if isinstance(character, str) and len(character) == 1 and character not in '\r\n"\ufeff\0':
        return character
    raise _value_error("must be one character, or comma, semicolon, tab or pipe", value)


def _encoding(value: Any) -> Any:
    try:
        "a".encode(value)
        return value
    except (TypeError, LookupError, ValueError):
        raise _value_error(
            "must be an encoding supported by Python", value, "For example utf-8, cp1252, gbk."
        ) from None


def _rate_range(value: Any) -> Any:
    ends = as_tuple(value)
    ends = ends if isinstance(ends, tuple) else (ends, ends)
    if len(ends) == 2 and all(_is_finite(end) and end > 0 for end in ends):
        low, high = map(float, ends)
        return (low, high) if isinstance(value, list | tuple) else low
    raise _value_error(
        "must be a learning rate above 0, or a pair of them: first and last layer group",
        value,
        "For example 1e-5, or [1e-6, 1e-5].",
    )


def _is_finite(value: Any) -> bool:
    return type(value) is int or (type(value) is float and isfinite(value))


def _argument(value: Any) -> Any:
    plain = as_tuple(value)
    if isinstance(plain, bool | str) or all(map(_is_finite, plain if isinstance(plain, tuple) else [plain])):
        return plain
    raise _value_error("must be a finite number, true, false, text, or a list of finite numbers", value)


def _regular_expression(value: Any) -> Any:
    try:
        check_pattern(value if isinstance(value, str) else "")
    except PatternError as error:
        raise _value_error(str(error), value) from error
    return value


NonEmptyText = Annotated[str, Field(pattern=NON_EMPTY)]
"""Text with at least one character that is not a space."""
Location = Annotated[str, Field(pattern=NON_EMPTY), BeforeValidator(_location)]
"""Local path or Hub id, also as a ``Path``."""
Count = Annotated[int, Field(ge=1), BeforeValidator(_as_integer)]
"""Integer of at least 1."""
Folds = Annotated[int, Field(ge=2), BeforeValidator(_as_integer)]
"""Number of folds of a cross-validation, at least 2."""
Seeds = Annotated[int, Field(ge=2, le=20), BeforeValidator(_as_integer)]
"""Number of trainings whose weights are averaged, 2 to 20."""
CountFromZero = Annotated[int, Field(ge=0), BeforeValidator(_as_integer)]
"""Integer of at least 0."""
Seed = Annotated[int, Field(ge=0, le=2**32 - 1), BeforeValidator(_as_integer)]
"""Random seed of 32 bits, as NumPy requires."""
RATE_SCHEMA = {"type": "number", "exclusiveMinimum": 0}
"""JSON Schema of a learning rate."""
TEXT_OR_TEXTS_SCHEMA = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}
"""JSON Schema of a text or a list of texts."""

Texts = Annotated[tuple[NonEmptyText, ...], BeforeValidator(_texts), WithJsonSchema(TEXT_OR_TEXTS_SCHEMA)]
"""List of texts; a single text is a list of one."""
NameOrNames = Annotated[
    str | tuple[str, ...], BeforeValidator(_name_or_names), WithJsonSchema(TEXT_OR_TEXTS_SCHEMA)
]
"""Column name, or list of column names."""
Pattern = Annotated[str, BeforeValidator(_regular_expression)]
"""Regular expression."""
Patterns = Annotated[
    tuple[Pattern, ...],
    BeforeValidator(_texts),
    WithJsonSchema(TEXT_OR_TEXTS_SCHEMA),
]
"""List of regular expressions; a single one is a list of one."""
Selector = Annotated[
    str | tuple[str, ...],
    BeforeValidator(_selector),
    WithJsonSchema(
        {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]}
    ),
]
"""Selector of parameters, such as ``last:3``, or a list of selectors."""
Warmup = Annotated[
    int | float,
    BeforeValidator(_warmup),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": 0},
                {"type": "number", "minimum": 0, "exclusiveMaximum": 1},
            ]
        }
    ),
]
"""Number of steps (integer), or fraction of the steps (number below 1)."""
Interval = Annotated[
    int | float,
    BeforeValidator(_interval),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": 1},
                {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1},
            ]
        }
    ),
]
"""Like ``Warmup``, but not 0."""
Views = Annotated[
    int | str,
    BeforeValidator(_views),
    WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 1}, {"const": "auto"}]}),
]
"""Number of views (augmented versions) of each example, or ``auto``."""
Workers = Annotated[
    int | str,
    BeforeValidator(_workers),
    WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 0}, {"const": "auto"}]}),
]
"""Number of data loader processes, or ``auto``."""
RateRange = Annotated[
    float | tuple[float, float],
    BeforeValidator(_rate_range),
    WithJsonSchema(
        {"anyOf": [RATE_SCHEMA, {"type": "array", "items": RATE_SCHEMA, "minItems": 2, "maxItems": 2}]}
    ),
]
"""Learning rate, or a pair of rates: first and last layer group."""
Separator = Annotated[str, BeforeValidator(_separator), WithJsonSchema({"type": "string", "minLength": 1})]
"""Character that separates the cells of a text file; named separators are converted."""
Encoding = Annotated[str, BeforeValidator(_encoding), WithJsonSchema({"type": "string", "minLength": 1})]
"""Text encoding that Python supports."""
Duration = Annotated[
    str,
    BeforeValidator(_duration),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "number", "exclusiveMinimum": 0}]}),
]
"""Duration as text, such as ``1h30m``; a number is in seconds. ``parse_duration`` returns its seconds."""
Moment = Annotated[str, BeforeValidator(_moment), WithJsonSchema({"type": "string", "minLength": 8})]
"""Date or time in ISO 8601, as text; YAML reads some as dates."""
FoldText = Annotated[
    str, BeforeValidator(_fold), WithJsonSchema({"type": "string", "pattern": r"^[1-9]\d*/[1-9]\d*$"})
]
"""Cross-validation fold as ``K/N``."""
Argument = Annotated[
    bool | int | float | str | tuple[int | float, ...],
    BeforeValidator(_argument),
    WithJsonSchema({"type": ["number", "boolean", "string", "array"], "items": {"type": "number"}}),
]
"""Value of an argument of an optimizer or a transform."""


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
"""Misclassification cost."""
SearchValues = Annotated[
    str | tuple[Any, ...],
    BeforeValidator(_search_values),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string"},
                {"type": "array", "items": {"type": ["number", "boolean", "string"]}},
            ]
        }
    ),
]
"""Values that a search tries: a range as text, or a list."""
Costs = Annotated[dict[str, dict[str, Cost]], BeforeValidator(_costs)]
"""Misclassification costs by true and predicted class."""
