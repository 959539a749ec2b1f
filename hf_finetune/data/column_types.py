"""Type inference for columns of untyped files, over all rows of all splits and only for columns that are used."""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset, Features, Value
from datasets.table import InMemoryTable

from hf_finetune.errors import Problem, join_quoted, join_words
from hf_finetune.fields.numbers import DECIMAL_COMMA, FLOAT, INTEGER, MINUS, SIGN, parse_number
from hf_finetune.targets import requested_target
from hf_finetune.targets.labels import TargetName

__all__ = [
    "LabelTypes",
    "all_numbers",
    "convert_numeric_columns",
    "guess_features",
    "infer_label_types",
    "is_number",
]

_INTEGER_OR_INTEGRAL_FLOAT = rf"({INTEGER})(\.0*)?"
"""Pattern of ``3``, ``3.`` and ``3.00``."""
_THOUSANDS = rf"{SIGN}[1-9][0-9]{{0,2}},[0-9]{{3}}"
_LIKE_NUMBER = rf"{SIGN}([0-9]+([.,][0-9]*)?|[.,][0-9]+)([eE][+-]?[0-9]+)?"
"""Pattern of a number or a code of digits, either of which means that a column is not text."""
_LIKE_BOOLEAN = r"[tT]rue|[fF]alse|TRUE|FALSE"
_FORMATTED_NUMBER = (
    rf"[$€£¥₹]?\s?{SIGN}(\d{{1,3}}([.,' \u00a0]\d{{3}})+|\d+)([.,]\d+)?\s?([%$€£¥₹]|[A-Z]{{3}})?"
)
"""Pattern of a number formatted for reading: with a currency or percent sign, or with thousands separators."""
_MISSING = frozenset({"na", "n/a", "#n/a", "null", "none", "nan", "-", "--", "?", ".", "missing"})
"""Placeholders for a missing number, in lower case."""
_MAX_CLASSES = 50
"""Number of distinct numbers above which labels with a few non-numeric rows are continuous targets."""
_MAX_ERROR_FRACTION = 0.1
"""Largest fraction of non-numeric rows that are treated as errors in an otherwise numeric column."""


@dataclass(frozen=True)
class LabelTypes:
    """Labels after type inference.

    Attributes:
        values: Labels of each split.
        notes: Sentences for the user about the decisions.
        problems: Rows with unusable labels, and ambiguities that the user must resolve.
    """

    values: Mapping[str, Sequence[Any]]
    notes: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()


def is_number(text: str) -> bool:
    """Return whether a text is a number without leading zeros."""
    return re.fullmatch(FLOAT, text.strip()) is not None


def all_numbers(column: pa.ChunkedArray) -> bool:
    """Return whether all non-null values are numbers without leading zeros."""
    return _all_match(column, FLOAT)


def guess_features(splits: Mapping[str, Dataset], untyped_splits: Collection[str]) -> Features:
    """Infer the types of the first split's columns from their values in all splits.

    Args:
        splits: Splits by name; the columns of the first one are returned.
        untyped_splits: Names of the splits whose files are untyped.

    Returns:
        Columns of the first split with the inferred types, or with its declared types if its files are typed.
    """
    first = next(iter(splits))
    features = Features(splits[first].features)
    if first not in untyped_splits:
        return features
    tables = [_strings(dataset, features) for dataset in splits.values()]
    for name in features:
        pairs = zip(tables, splits.values(), strict=True)
        present = [table for table, dataset in pairs if name in dataset.column_names]
        if all(name in table.column_names for table in present):
            features[name] = Value(_guess([table[name] for table in present]))
    return features


def _strings(dataset: Dataset, names: Iterable[str]) -> pa.Table:
    """Return the columns among ``names`` that contain strings.

    They are selected in one step, because each step copies the types of the whole table.
    """
    types = dataset.features.arrow_schema
    string_columns = [
        name for name in names if name in dataset.column_names and pa.types.is_string(types.field(name).type)
    ]
    return dataset.select_columns(string_columns).with_format("arrow")[:] if string_columns else pa.table({})


def _guess(columns: Sequence[pa.ChunkedArray]) -> str:
    if all(column.null_count == len(column) for column in columns):
        return "null"
    for pattern, kind in ((_LIKE_BOOLEAN, "bool"), (f"{SIGN}[0-9]+", "int64"), (_LIKE_NUMBER, "float64")):
        if all(_all_match(column, pattern) for column in columns):
            return kind
    return "string"


def _all_match(column: pa.ChunkedArray, pattern: str) -> bool:
    """Return whether all non-null values match a pattern."""
    head = column.slice(0, 100)
    return all(
        pc.all(pc.match_substring_regex(part, rf"^\s*({pattern})\s*$")).as_py() is not False
        for part in (head, column)
    )


def convert_numeric_columns(
    splits: Mapping[str, Dataset], untyped_splits: Collection[str], names: Iterable[str], decimal: str | None
) -> dict[str, Dataset]:
    """Convert text columns that contain only numbers or only booleans in all splits.

    Args:
        splits: Splits by name.
        untyped_splits: Names of the splits whose files are untyped.
        names: Columns to convert.
        decimal: Decimal mark; None infers it.

    Returns:
        All splits, with the converted columns as numbers or booleans.
    """
    converted, names = dict(splits), list(names)
    tables = {split: _strings(splits[split], names) for split in untyped_splits}
    for name in names:
        columns = {split: table[name] for split, table in tables.items() if name in table.column_names}
        typed_features = [dataset.features[name] for split, dataset in splits.items()
                  if split not in untyped_splits and name in dataset.column_names]  # fmt: skip
        values = {value for column in columns.values() for value in pc.unique(column).to_pylist()} - {None}
        typed = {} if any(map(_is_text, typed_features)) else _typed(values, decimal)
        if not typed:
            continue
        for split, column in columns.items():
            array = pa.array([typed.get(value) for value in column.to_pylist()])
            table = converted[split].with_format("arrow")[:]
            table = table.set_column(table.column_names.index(name), name, array)
            converted[split] = Dataset(InMemoryTable(table))
    return converted


def _typed(values: Collection[str], decimal: str | None) -> dict[str, float | bool]:
    """Return the number or boolean of each text; an empty mapping if some texts are neither."""
    if all(re.fullmatch(_LIKE_BOOLEAN, value) for value in values):
        return {value: value.lower() == "true" for value in values}
    mark, problem = (decimal, None) if decimal else _decimal_mark(values, certain=False)
    numbers = {value: parse_number(value, mark or ".") for value in values}
    known_numbers = {value: number for value, number in numbers.items() if number is not None}
    return dict(known_numbers) if problem is None and len(known_numbers) == len(values) else {}


def _is_text(feature: Any) -> bool:
    return not isinstance(feature, Value) or feature.dtype in ("string", "large_string", "bool")


def infer_label_types(
    labels: Mapping[str, Sequence[Any]],
    ids: Mapping[str, Sequence[str]],
    *,
    untyped_splits: Collection[str],
    requested: TargetName | Literal["auto"],
    decimal: str | None = None,
    skip: bool = False,
    known: Sequence[str] = (),
) -> LabelTypes:
    """Infer whether text labels are numbers.

    They are numbers if every one of them is a number without leading zeros. Class names stay as written, except
    that ``1.0`` and ``1`` are one class where all labels are numbers.

    Args:
        labels: Labels of each split; None is a missing label.
        ids: Example ids of each split.
        untyped_splits: Names of the splits whose files are untyped.
        requested: Label type to read; ``auto`` infers it.
        decimal: Decimal mark; None infers it.
        skip: Whether a non-numeric label among numbers becomes missing instead of a problem.
        known: Classes of the model that will be evaluated; empty before training.

    Returns:
        Labels as texts or numbers, notes, and problems.
    """
    kind = requested_target(requested)
    if kind is not None and not (kind.is_numeric or kind.has_classes):
        return LabelTypes(labels)
    numeric = kind is not None and kind.is_numeric
    splits = labels if numeric else [split for split in labels if split in untyped_splits]
    texts = {value for split in splits for value in labels[split] if isinstance(value, str)}
    other_values = (value for split in labels for value in labels[split] if not isinstance(value, str))
    if not texts or any(isinstance(value, list | dict | bool) for value in other_values):
        return LabelTypes(labels)
    if any(isinstance(value, str) for split in labels if split not in splits for value in labels[split]):
        return LabelTypes(labels)
    if (kind is not None and kind.has_classes) or (kind is None and known):
        return LabelTypes(_replaced(labels, splits, _class_names(texts, known)), ())
    mark, problem = (decimal, None) if decimal else _decimal_mark(texts, certain=numeric)
    if problem is not None:
        return LabelTypes(labels, (), (problem,))
    numbers = {text: parse_number(text, mark or ".") for text in texts}
    non_numeric = {text for text, number in numbers.items() if number is None}
    count = sum(isinstance(value, str) for split in splits for value in labels[split])
    if requested == "auto" and 2 * len(texts) > count and _are_formatted_numbers(texts, non_numeric):
        return LabelTypes(labels, (), (_formatted_numbers_problem(non_numeric),))
    real = {number for number in numbers.values() if number is not None}
    fractions = any(not number.is_integer() for number in real if abs(number) != float("inf"))
    if non_numeric and _are_errors(non_numeric, real, fractions, labels, splits, numeric):
        if not skip:
            return LabelTypes(labels, (), (_not_numeric_problem(non_numeric, labels, ids, requested),))
        non_numeric = set()
    notes = ("The labels are numbers with decimal commas.",) if mark == "," and not non_numeric else ()
    if not non_numeric and (fractions or numeric):
        return LabelTypes(_replaced(labels, splits, numbers), notes)
    return LabelTypes(_replaced(labels, splits, {} if non_numeric else _class_names(texts, ())), notes)


def _class_names(texts: Collection[str], known: Collection[str]) -> dict[str, Any]:
    """Return a map from label text to class, for texts whose class is written differently.

    Integers become numbers, and booleans get the spelling of the model.

    ``1.0`` and ``1`` are one class. A model whose csv labels were read as booleans has the classes ``True`` and
    ``False``, however the file spells them.
    """
    if all(re.fullmatch(_INTEGER_OR_INTEGRAL_FLOAT, text) for text in texts) and not set(texts) <= set(known):
        plain = {text: text.replace(MINUS, "-") for text in texts}
        return {text: float(number) if "." in number else int(number) for text, number in plain.items()}
    if set(known) == {"True", "False"} and all(re.fullmatch(_LIKE_BOOLEAN, text) for text in texts):
        return {text: text.capitalize() for text in texts}
    return {}


def _replaced(
    labels: Mapping[str, Sequence[Any]], splits: Iterable[str], new: Mapping[str, Any]
) -> dict[str, Sequence[Any]]:
    replaced = dict(labels)
    for split in splits if new else ():
        values = labels[split]
        replaced[split] = [new.get(value, value) if isinstance(value, str) else value for value in values]
    return replaced


def _decimal_mark(texts: Collection[str], certain: bool) -> tuple[str | None, Problem | None]:
    """Return ``,`` if decimal commas are detected, else None; and a problem if the commas are ambiguous, else None.

    Values that are ``certain`` are known to be numbers, and not lists such as ``1,3``.
    """
    plain = {text.strip() for text in texts if text.strip().casefold() not in _MISSING}
    commas = {text for text in plain if re.fullmatch(DECIMAL_COMMA, text)}
    if not commas or any(not re.fullmatch(INTEGER, text) for text in plain - commas):
        return None, None
    shown = join_quoted(sorted(commas), most=3)
    repair = "Set data.decimal: ',' if these are numbers with decimal commas"
    if all(re.fullmatch(_THOUSANDS, text) for text in commas):
        rule = "must be set, because a comma can be a decimal mark or a thousands separator"
        return None, Problem("data.decimal", rule, shown, f"{repair}; otherwise write them without commas.")
    parts = [text.lstrip(f"+{MINUS}-").split(",") for text in commas]
    if certain or any(whole == fraction or re.fullmatch(r"0[0-9]+", fraction) for whole, fraction in parts):
        return ",", None
    rule = "must be set, because values can be decimal numbers or lists of numbers"
    repair += "; set data.columns.label: {name: ..., separator: ','} if they are several labels."
    return None, Problem("data.decimal", rule, shown, repair)


def _are_errors(
    non_numeric: Collection[str],
    real: Collection[float],
    fractions: bool,
    labels: Mapping[str, Sequence[Any]],
    splits: Collection[str],
    numeric: bool,
) -> bool:
    """Return whether non-numeric values are errors in labels that are continuous targets."""
    if numeric:
        return bool(real)
    if not fractions:
        return False
    if all(text.strip().casefold() in _MISSING for text in non_numeric):
        return True
    values = [value for split in splits for value in labels[split] if value is not None]
    errors = sum(value in non_numeric for value in values)
    return len(real) > _MAX_CLASSES and errors <= _MAX_ERROR_FRACTION * len(values)


def _are_formatted_numbers(texts: Collection[str], non_numeric: Collection[str]) -> bool:
    """Return whether all texts are formatted numbers, with a currency, a percent sign or thousands separators.

    The texts in ``non_numeric`` are not plain numbers. Digits alone, such as ``007``, are not formatted numbers.
    """
    if not non_numeric or any(re.fullmatch(rf"{SIGN}\d*[.,]?\d*", text.strip()) for text in non_numeric):
        return False
    return all(re.fullmatch(_FORMATTED_NUMBER, text.strip()) for text in texts)


def _formatted_numbers_problem(texts: Collection[str]) -> Problem:
    rule = "must contain plain numbers for regression"
    repair = (
        "Write them without units and thousands separators; if they are class names, set data.target: "
        "single_label."
    )
    return Problem("The label column", rule, join_quoted(sorted(texts), most=3), repair)


def _not_numeric_problem(
    non_numeric: Collection[str],
    labels: Mapping[str, Sequence[Any]],
    ids: Mapping[str, Sequence[str]],
    requested: str,
) -> Problem:
    rows = [
        f"{value!r} for {row!r}"
        for split in labels
        for value, row in zip(labels[split], ids[split], strict=True)
        if isinstance(value, str) and value in non_numeric
    ]
    repair = "Write numbers there, or remove these rows."
    if requested == "auto":
        repair += " If the labels are class names, set data.target: single_label."
    return Problem("The label column", "must contain a number in every row", join_words(rows), repair)
