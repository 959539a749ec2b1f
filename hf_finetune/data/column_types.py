"""Types of columns whose file states none: decided once, over all rows of all splits, where a column is used."""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset, Features, Value
from datasets.table import InMemoryTable

from hf_finetune.data.formatting import listed, quoted
from hf_finetune.data.labels import Target
from hf_finetune.errors import Problem

__all__ = ["LabelTypes", "all_numbers", "guess_features", "is_number", "settle_labels", "settle_numbers"]

_MINUS = "\u2212"
"""The minus sign of Unicode, which spreadsheets and word processors write for a hyphen."""
_SIGN = f"[+{_MINUS}-]?"
_WHOLE = f"0|[{_MINUS}-]?[1-9][0-9]*"
_REAL = rf"{_SIGN}((0|[1-9][0-9]*)(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?"
"""A number without leading zeros, which codes have."""
_WHOLE_OR_POINT_ZERO = rf"({_WHOLE})(\.0*)?"
_INFINITE = rf"{_SIGN}([iI]nf(inity)?|INF)"
_DECIMAL_COMMA = rf"{_SIGN}(0|[1-9][0-9]*),[0-9]+"
_THOUSANDS = rf"{_SIGN}[1-9][0-9]{{0,2}},[0-9]{{3}}"
_LIKE_NUMBER = rf"{_SIGN}([0-9]+([.,][0-9]*)?|[.,][0-9]+)([eE][+-]?[0-9]+)?"
"""Values of columns that are no texts: numbers, and codes of digits."""
_LIKE_BOOLEAN = r"[tT]rue|[fF]alse|TRUE|FALSE"
_WRITTEN_AMOUNT = (
    rf"[$€£¥₹]?\s?{_SIGN}(\d{{1,3}}([.,' \u00a0]\d{{3}})+|\d+)([.,]\d+)?\s?([%$€£¥₹]|[A-Z]{{3}})?"
)
"""A number as it is written in texts: with a currency or percent, with separators of thousands."""
_MISSING = frozenset({"na", "n/a", "#n/a", "null", "none", "nan", "-", "--", "?", ".", "missing"})
"""Words for a missing number."""
_MOST_CLASSES = 50
_FEW = 0.1
"""Share of the rows up to which values that are no numbers are taken for mistakes among numbers."""


@dataclass(frozen=True)
class LabelTypes:
    """Labels of known types.

    Attributes:
        values: The labels of each split.
        notes: What was decided, a sentence each.
        problems: Rows whose label is of no use, and what cannot be decided.
    """

    values: Mapping[str, Sequence[Any]]
    notes: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()


def is_number(text: str) -> bool:
    """Return whether a text is a number without leading zeros."""
    return re.fullmatch(_REAL, text.strip()) is not None


def all_numbers(column: pa.ChunkedArray) -> bool:
    """Return whether all values that are there are numbers without leading zeros."""
    return _all_match(column, _REAL)


def guess_features(splits: Mapping[str, Dataset], of_text: Collection[str]) -> Features:
    """Return the columns of the first split, with the types that their values in all splits look like.

    Args:
        splits: The splits, the one whose columns count first.
        of_text: Names of the splits whose files state no types.
    """
    first = next(iter(splits))
    features = Features(splits[first].features)
    if first not in of_text:
        return features
    tables = [_strings(dataset, features) for dataset in splits.values()]
    for name in features:
        present = [
            table
            for table, dataset in zip(tables, splits.values(), strict=True)
            if name in dataset.column_names
        ]
        if all(name in table.column_names for table in present):
            features[name] = Value(_guess([table[name] for table in present]))
    return features


def _strings(dataset: Dataset, names: Iterable[str]) -> pa.Table:
    """Return those of some columns that hold strings, all at once: each step copies the types of the whole table."""
    types = dataset.features.arrow_schema
    found = [
        name for name in names if name in dataset.column_names and pa.types.is_string(types.field(name).type)
    ]
    return dataset.select_columns(found).with_format("arrow")[:] if found else pa.table({})


def _guess(columns: Sequence[pa.ChunkedArray]) -> str:
    if all(column.null_count == len(column) for column in columns):
        return "null"
    for pattern, kind in ((_LIKE_BOOLEAN, "bool"), (f"{_SIGN}[0-9]+", "int64"), (_LIKE_NUMBER, "float64")):
        if all(_all_match(column, pattern) for column in columns):
            return kind
    return "string"


def _all_match(column: pa.ChunkedArray, pattern: str) -> bool:
    """Return whether all values that are there match."""
    head = column.slice(0, 100)
    return all(
        pc.all(pc.match_substring_regex(part, rf"^\s*({pattern})\s*$")).as_py() is not False
        for part in (head, column)
    )


def settle_numbers(
    splits: Mapping[str, Dataset], of_text: Collection[str], names: Iterable[str], decimal: str | None
) -> dict[str, Dataset]:
    """Make numbers of the columns that hold nothing else in any split.

    Args:
        splits: The splits.
        of_text: Names of those whose files state no types.
        names: The columns that are used by their values.
        decimal: Decimal mark, if it is known.
    """
    settled, names = dict(splits), list(names)
    tables = {split: _strings(splits[split], names) for split in of_text}
    for name in names:
        columns = {split: table[name] for split, table in tables.items() if name in table.column_names}
        others = [dataset.features[name] for split, dataset in splits.items()
                  if split not in of_text and name in dataset.column_names]  # fmt: skip
        values = {value for column in columns.values() for value in pc.unique(column).to_pylist()} - {None}
        typed = {} if any(map(_is_text, others)) else _typed(values, decimal)
        for split, column in columns.items() if typed else ():
            array = pa.array([typed.get(value) for value in column.to_pylist()])
            table = settled[split].with_format("arrow")[:]
            settled[split] = Dataset(
                InMemoryTable(table.set_column(table.column_names.index(name), name, array))
            )
    return settled


def _typed(values: Collection[str], decimal: str | None) -> dict[str, float | bool]:
    """Return the number or the truth value that each text stands for; nothing if some are neither."""
    if all(re.fullmatch(_LIKE_BOOLEAN, value) for value in values):
        return {value: value.lower() == "true" for value in values}
    mark, problem = (decimal, None) if decimal else _decimal_mark(values, certain=False)
    numbers = {value: _number(value, mark or ".") for value in values}
    found = {value: number for value, number in numbers.items() if number is not None}
    return dict(found) if problem is None and len(found) == len(values) else {}


def _is_text(feature: Any) -> bool:
    return not isinstance(feature, Value) or feature.dtype in ("string", "large_string", "bool")


def settle_labels(
    labels: Mapping[str, Sequence[Any]],
    ids: Mapping[str, Sequence[str]],
    *,
    of_text: Collection[str],
    requested: Target | Literal["auto"],
    decimal: str | None = None,
    skip: bool = False,
    known: Sequence[str] = (),
) -> LabelTypes:
    """Decide whether labels that are texts are numbers.

    They are numbers if every one of them is a number without leading zeros. Class names stay as they are written;
    only ``1.0`` is class ``1`` where all labels are numbers.

    Args:
        labels: The labels of each split; None is missing.
        ids: The name of each example.
        of_text: Names of the splits whose files state no types.
        requested: What the labels are to be read as.
        decimal: Decimal mark, if it is known.
        skip: Whether a label that is no number among numbers is missing, instead of a problem.
        known: Classes of the model that is to be evaluated.
    """
    splits = labels if requested == "regression" else [split for split in labels if split in of_text]
    texts = {value for split in splits for value in labels[split] if isinstance(value, str)}
    others = [
        value
        for split in labels
        for value in labels[split]
        if value is not None and not isinstance(value, str)
    ]
    if not texts or any(isinstance(value, list | dict | bool) for value in others):
        return LabelTypes(labels)
    if any(isinstance(value, str) for split in labels if split not in splits for value in labels[split]):
        return LabelTypes(labels)
    if requested in ("single_label", "multi_label") or (requested == "auto" and known):
        return LabelTypes(_replaced(labels, splits, _class_names(texts, known)), ())
    mark, problem = (decimal, None) if decimal else _decimal_mark(texts, certain=requested == "regression")
    if problem is not None:
        return LabelTypes(labels, (), (problem,))
    numbers = {text: _number(text, mark or ".") for text in texts}
    strange = {text for text, number in numbers.items() if number is None}
    count = sum(isinstance(value, str) for split in splits for value in labels[split])
    if requested == "auto" and 2 * len(texts) > count and _are_written_amounts(texts, strange):
        return LabelTypes(labels, (), (_written_amounts(strange),))
    real = {number for number in numbers.values() if number is not None}
    fractions = any(not number.is_integer() for number in real if abs(number) != float("inf"))
    if strange and _are_mistakes(strange, real, fractions, labels, splits, requested):
        if not skip:
            return LabelTypes(labels, (), (_no_numbers(strange, labels, ids, requested),))
        strange = set()
    notes = ("The labels are numbers with decimal commas.",) if mark == "," and not strange else ()
    if not strange and (fractions or requested == "regression"):
        return LabelTypes(_replaced(labels, splits, numbers), notes)
    return LabelTypes(_replaced(labels, splits, {} if strange else _class_names(texts, ())), notes)


def _class_names(texts: Collection[str], known: Collection[str]) -> dict[str, Any]:
    """Return numbers for whole numbers, of which ``1.0`` and ``1`` are one, and names of the model for old spellings.

    Models whose csv was read as truth values have the classes True and False however the file writes them.
    """
    if all(re.fullmatch(_WHOLE_OR_POINT_ZERO, text) for text in texts) and not set(texts) <= set(known):
        plain = {text: text.replace(_MINUS, "-") for text in texts}
        return {text: float(number) if "." in number else int(number) for text, number in plain.items()}
    if set(known) == {"True", "False"} and all(re.fullmatch(_LIKE_BOOLEAN, text) for text in texts):
        return {text: text.capitalize() for text in texts}
    return {}


def _replaced(
    labels: Mapping[str, Sequence[Any]], splits: Iterable[str], new: Mapping[str, Any]
) -> dict[str, Sequence[Any]]:
    chosen = set(splits) if new else set()
    return {
        split: [new.get(value, value) if isinstance(value, str) else value for value in values]
        if split in chosen
        else values
        for split, values in labels.items()
    }


def _number(text: str, mark: str) -> float | None:
    written = text.strip().replace(_MINUS, "-")
    plain = written
    if mark == ",":
        plain = plain.replace(",", ".") if re.fullmatch(_DECIMAL_COMMA, plain) else plain
        if not re.fullmatch(rf"{_WHOLE}|{_DECIMAL_COMMA}", written) and re.fullmatch(_REAL, written):
            return None if "." in written else float(written)
    return float(plain) if re.fullmatch(rf"{_REAL}|{_INFINITE}", plain) else None


def _decimal_mark(texts: Collection[str], certain: bool) -> tuple[str | None, Problem | None]:
    """Recognize decimal commas.

    Args:
        texts: The different values.
        certain: Whether they are known to be numbers, and not lists such as ``1,3``.

    Returns:
        The mark, None if there is nothing to recognize, or the problem that it cannot be told.
    """
    plain = {text.strip() for text in texts if text.strip().casefold() not in _MISSING}
    commas = {text for text in plain if re.fullmatch(_DECIMAL_COMMA, text)}
    if not commas or any(not re.fullmatch(_WHOLE, text) for text in plain - commas):
        return None, None
    shown = quoted(sorted(commas), most=3)
    repair = "Set data.decimal: ',' if these are numbers with decimal commas"
    if all(re.fullmatch(_THOUSANDS, text) for text in commas):
        rule = "must be stated where commas may stand between thousands"
        return None, Problem("data.decimal", rule, shown, f"{repair}; else write them without commas.")
    parts = [text.lstrip(f"+{_MINUS}-").split(",") for text in commas]
    if certain or any(whole == fraction or re.fullmatch(r"0[0-9]+", fraction) for whole, fraction in parts):
        return ",", None
    rule = "must be stated where values may be numbers or lists"
    repair += "; set data.columns.label: {name: ..., separator: ','} if they are several labels."
    return None, Problem("data.decimal", rule, shown, repair)


def _are_mistakes(
    strange: Collection[str],
    real: Collection[float],
    fractions: bool,
    labels: Mapping[str, Sequence[Any]],
    splits: Collection[str],
    requested: str,
) -> bool:
    """Return whether values that are no numbers stand among labels that are amounts."""
    if requested == "regression":
        return bool(real)
    if not fractions:
        return False
    if all(text.strip().casefold() in _MISSING for text in strange):
        return True
    values = [value for split in splits for value in labels[split] if value is not None]
    return len(real) > _MOST_CLASSES and sum(value in strange for value in values) <= _FEW * len(values)


def _are_written_amounts(texts: Collection[str], strange: Collection[str]) -> bool:
    """Return whether all texts are amounts, and those that are no numbers have signs or separators of thousands.

    Args:
        texts: The different labels.
        strange: Those that are no numbers. Codes such as ``007`` have neither.
    """
    plain = any(re.fullmatch(rf"{_SIGN}\d*[.,]?\d*", text.strip()) for text in strange)
    return bool(strange) and not plain and all(re.fullmatch(_WRITTEN_AMOUNT, text.strip()) for text in texts)


def _written_amounts(texts: Collection[str]) -> Problem:
    rule = "must hold plain numbers if its values are amounts"
    repair = (
        "Write them without signs and without separators of thousands; if they are names of classes, set data.target: "
        "single_label."
    )
    return Problem("The label column", rule, quoted(sorted(texts), most=3), repair)


def _no_numbers(
    strange: Collection[str],
    labels: Mapping[str, Sequence[Any]],
    ids: Mapping[str, Sequence[str]],
    requested: str,
) -> Problem:
    rows = [
        f"{value!r} for {row!r}"
        for split in labels
        for value, row in zip(labels[split], ids[split], strict=True)
        if isinstance(value, str) and value in strange
    ]
    repair = "Write numbers there, or remove these rows."
    if requested == "auto":
        repair += " If the labels are names of classes, set data.target: single_label."
    return Problem("The label column", "must hold a number in every row", listed(rows), repair)
