"""Labels as vectors with one value per class: multi-hot vectors, or class probabilities."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from hf_finetune.errors import Problem, join_quoted
from hf_finetune.targets import requested_target
from hf_finetune.targets.labels import TargetName
from hf_finetune.targets.reading import rows_where

__all__ = ["Cells", "LabelValues", "LabelVectors", "is_binary_column", "read_label_vectors"]

YES = ("1", "1.0", "true", "yes", "y", "t")
NO = ("0", "0.0", "false", "no", "n", "f")
DECIMAL_COMMA = re.compile(r"[-+]?\d+,\d+")
ROUNDING = 0.005
"""Largest rounding error of a probability with two decimals."""

Split = str
Cells = Mapping[Split, Sequence[Any]]
Numbers = Mapping[Split, Sequence[Sequence[float | None] | None]]
Ids = Mapping[Split, Sequence[str]]


@dataclass(frozen=True)
class LabelValues:
    """Labels of all splits before encoding.

    Attributes:
        values: Label of each example: a class name, a number, a list of class names, or None if it is missing.
        unknown: Classes of each example whose membership is unknown; None if it is always known.
        probabilities: Class probabilities of each example, by class name; None if the labels are not probabilities.
        names: Class names in the order of the data or the recipe; None if neither lists them.
        notes: Sentences for the user.
    """

    values: dict[Split, list[Any]]
    unknown: dict[Split, list[list[str]]] | None = None
    probabilities: dict[Split, list[dict[str, float] | None]] | None = None
    names: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class LabelVectors:
    """Label vectors of all splits, with one value per class.

    Attributes:
        names: Class name of each position.
        rows: Label vector of each example; None if it has no label.
        where: Description of the vectors or columns, for messages.
        absent: Value of a missing probability; None makes it an error.
    """

    names: tuple[str, ...]
    rows: dict[Split, list[Sequence[Any] | None]]
    where: str
    absent: float | None = None


def read_label_vectors(
    vectors: LabelVectors, ids: Ids, requested: TargetName | Literal["auto"]
) -> tuple[LabelValues, list[Problem]]:
    """Interpret label vectors as multi-hot vectors, or as class probabilities if they contain other values.

    Args:
        vectors: Label vectors of all splits.
        ids: Example ids of each split, for messages.
        requested: Label type to read; ``auto`` infers it.

    Returns:
        The labels, and problems.
    """
    numbers: dict[Split, list[list[float | None] | None]] = {}
    invalid: dict[str, str] = {}
    for split, rows in vectors.rows.items():
        numbers[split] = []
        for row, name in zip(rows, ids[split], strict=True):
            read = None if row is None else [_number(value) for value in row]
            if read is not None and any(isinstance(value, str) for value in read):
                invalid.setdefault(name, next(value for value in read if isinstance(value, str)))
            known = read is not None and any(value is not None for value in read)
            numbers[split].append(read if known else None)  # type: ignore[arg-type]
    if invalid:
        value = f"{next(iter(invalid.values()))!r} in {join_quoted(invalid)}"
        repair = "Write 0 or 1 (or no and yes, false and true); leave a cell empty if its value is unknown."
        rule = f"must contain 0, 1 or a probability in {vectors.where}"
        return LabelValues({}), [Problem("The labels", rule, value, repair)]
    if all(value in (0, 1, None) for value in _flat(numbers)):
        return _read_multi_hot(vectors, numbers, ids, requested)
    return _read_probabilities(vectors, numbers, ids, requested)


def is_binary_column(values: Sequence[Any]) -> bool:
    """Return whether a column contains both zeros and ones, and otherwise only empty cells."""
    numbers = {"" if isinstance(value, list | dict) else _number(value) for value in values}
    return numbers - {None} == {0, 1}


def _number(value: Any) -> float | str | None:
    """Return the number in a cell, 0 or 1 for words such as no and yes, None for an empty cell, or else its text."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, bool | int | float):
        return float(value)
    text = str(value).strip().lower()
    if not text:
        return None
    if text in YES or text in NO:
        return float(text in YES)
    try:
        number = float(text.replace(",", ".") if DECIMAL_COMMA.fullmatch(text) else text)
    except ValueError:
        return str(value)
    return number if math.isfinite(number) else str(value)


def _read_multi_hot(
    vectors: LabelVectors, numbers: Numbers, ids: Ids, requested: TargetName | Literal["auto"]
) -> tuple[LabelValues, list[Problem]]:
    """Interpret label vectors as multi-hot vectors, in which None is unknown."""
    classes: dict[Split, list[Any]] = {
        split: [
            None if row is None else [name for name, value in zip(vectors.names, row, strict=True) if value]
            for row in rows
        ]
        for split, rows in numbers.items()
    }
    kind = requested_target(requested)
    if kind is not None and kind.is_exclusive:
        return _read_one_hot(vectors, classes, ids, requested)
    unknown = {
        split: [
            [name for name, value in zip(vectors.names, row or (), strict=bool(row)) if value is None]
            for row in rows
        ]
        for split, rows in numbers.items()
    }
    cells = sum(len(names) for split in unknown for names in unknown[split])
    if cells and not any(value == 0 for value in _flat(numbers)):
        rule = f"must contain 0 where a class does not apply, in {vectors.where}"
        repair = "Empty cells are read as unknown: write 0 where the class does not apply."
        return LabelValues({}), [Problem("The labels", rule, "only 1 and empty cells", repair)]
    notes = [f"The labels are {vectors.where}: 1 means that the class applies."]
    if cells:
        total = sum(len(vectors.names) for rows in numbers.values() for row in rows if row is not None)
        notes.append(
            f"{cells:,} of {total:,} label cells are empty: they are read as unknown, and excluded from the "
            "loss and the metrics."
        )
    elif all(names is None or len(names) == 1 for split in classes for names in classes[split]):
        notes.append(
            "Every row has exactly one class: if the classes are mutually exclusive, set data.target: "
            "single_label."
        )
    return LabelValues(classes, unknown if cells else None, None, vectors.names, tuple(notes)), []


def _read_one_hot(
    vectors: LabelVectors, classes: Mapping[Split, Sequence[Any]], ids: Ids, requested: str
) -> tuple[LabelValues, list[Problem]]:
    """Return the only class of each row, or a problem if rows have no class or several."""
    wrong = rows_where(classes, ids, lambda names: names is not None and len(names) != 1)
    if wrong:
        rule = f"must have exactly one class in every row if data.target is {requested}"
        value = f"no class or several classes in {join_quoted(wrong)}"
        repair = "Remove data.target if a row may have no class or several classes."
        return LabelValues({}), [Problem("The labels", rule, value, repair)]
    values = {split: [names[0] if names else None for names in classes[split]] for split in classes}
    return LabelValues(values, names=vectors.names), []


def _read_probabilities(
    vectors: LabelVectors, numbers: Numbers, ids: Ids, requested: TargetName | Literal["auto"]
) -> tuple[LabelValues, list[Problem]]:
    """Interpret label vectors as class probabilities, which must sum to 1 in each row."""
    filled = {
        split: [None if row is None else [vectors.absent if v is None else v for v in row] for row in rows]
        for split, rows in numbers.items()
    }
    if problem := _probability_problem(filled, ids, requested, len(vectors.names)):
        return LabelValues({}), [problem]
    probabilities = {
        split: [None if row is None else _normalize(vectors.names, row) for row in rows]
        for split, rows in filled.items()
    }
    values = {
        split: [None if row is None else max(row, key=lambda name: row[name]) for row in rows]
        for split, rows in probabilities.items()
    }
    ties = sum(
        row is not None and list(row.values()).count(max(row.values())) > 1
        for rows in probabilities.values()
        for row in rows
    )
    notes = [
        "The labels are probabilities: the loss is the cross-entropy with them; stratification, metrics and "
        "the report use the most probable class of each example."
    ]
    if ties:
        notes.append(f"{ties:,} examples have several most probable classes; the first one is used.")
    return LabelValues(values, None, probabilities, vectors.names, tuple(notes)), []


def _normalize(names: Sequence[str], row: Sequence[Any]) -> dict[str, float]:
    """Return probabilities by class name, divided by their sum."""
    total = math.fsum(row)
    return {name: value / total for name, value in zip(names, row, strict=True)}


def _probability_problem(
    rows: Numbers, ids: Ids, requested: TargetName | Literal["auto"], classes: int
) -> Problem | None:
    """Return the problem of label vectors that are not probabilities, or that the target does not allow to be any."""
    slack = max(0.01, ROUNDING * classes)

    def is_wrong(row: Sequence[float | None] | None) -> bool:
        if row is None:
            return False
        known = [value for value in row if value is not None]
        return len(known) < len(row) or min(known) < 0 or abs(math.fsum(known) - 1) > slack

    kind = requested_target(requested)
    if kind is not None and kind.has_several_classes:
        wrong = rows_where(rows, ids, lambda row: row is not None and not {*row} <= {0, 1, None})
        rule = f"must be 0 or 1 if data.target is {requested}"
        repair = "Round them, for example at 0.5."
    elif wrong := rows_where(rows, ids, is_wrong):
        rule = "must be 0 or 1 for each class, or nonnegative probabilities that sum to 1 in every row"
        repair = "Divide each row by its sum if the numbers are votes or percentages."
        if any(value is not None and value < 0 for value in _flat(rows)):
            repair = "Leave a cell empty if its number, such as -1, means unknown."
        if mixed := _few_fractions(rows, ids):
            wrong = mixed
            repair = (
                "All other rows contain only 0 and 1: write 0 or 1 here too, or leave the cell empty if its "
                "value is unknown."
            )
    else:
        return None
    named = ((name, row) for split in rows for name, row in zip(ids[split], rows[split], strict=True))
    first = next(row for name, row in named if name in wrong)
    return Problem("The labels", rule, f"{first!r} in {join_quoted(wrong)}", repair)


def _few_fractions(rows: Cells, ids: Ids) -> list[str]:
    """Return the ids of rows with fractions if most rows are multi-hot vectors that cannot be probabilities.

    The result is empty if every row of zeros and ones has exactly one 1, because such rows may be probabilities.
    """
    fractions = rows_where(rows, ids, lambda row: row is not None and not {*row} <= {0, 1, None})
    whole = [row for cells in rows.values() for row in cells if row is not None and {*row} <= {0, 1, None}]
    are_members = any(sum(filter(None, row)) != 1 for row in whole)
    return fractions if are_members and len(fractions) < len(whole) else []


def _flat(rows: Numbers) -> list[float | None]:
    """Return the values of all label vectors."""
    return [value for split in rows for row in rows[split] if row is not None for value in row]
