"""Parsing of the labels and example weights of tables."""

import math
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from hf_finetune.data.column_types import infer_label_types
from hf_finetune.data.columns import Columns
from hf_finetune.data.label_checks import merge_variants, note_variants
from hf_finetune.data.label_form import LabelForm
from hf_finetune.data.label_values import read_values
from hf_finetune.data.label_vectors import LabelValues
from hf_finetune.data.tables import Table
from hf_finetune.errors import Problem, join_quoted
from hf_finetune.targets import requested_target
from hf_finetune.targets.labels import TargetName
from hf_finetune.targets.names import label_text
from hf_finetune.targets.reading import flat_labels

__all__ = ["drop_unlabeled", "parse_labels"]

DECIMAL = re.compile(r"\d+,(\d{1,2}|\d{4,})")
"""Pattern of a number with a decimal comma, without three digits after it, which may be thousands."""


def parse_labels(
    tables: Mapping[str, Table],
    form: LabelForm,
    columns: Columns,
    requested: TargetName | Literal["auto"],
    *,
    untyped_splits: Collection[str],
    decimal: str | None = None,
    skip: bool = False,
    known: Sequence[str] | None = None,
) -> tuple[dict[str, Table], list[str], list[str], list[Problem]]:
    """Parse the labels and example weights of all splits, which must have the same label format.

    Text labels are numbers if they are in all splits, unless the recipe or the data declares their format or classes.

    Args:
        tables: Table of each split, with the raw cells of the label columns as labels.
        form: Label format declared by the recipe.
        columns: Columns that are used.
        requested: Label type to read; ``auto`` infers it.
        untyped_splits: Names of the splits whose files are untyped.
        decimal: Decimal mark; None infers it.
        skip: Whether a non-numeric label among numbers becomes missing instead of an error.
        known: Classes of a trained model; None if the classes are those of the data.

    Returns:
        The splits with class names, lists of class names, or numbers as labels; notes on the type of the labels; notes
        on their format; and problems.
    """
    several = form.one_column_per_class or form.separator is not None or form.classes
    type_notes: list[str] = []
    if not (
        several or form.pattern is not None or any(table.declared is not None for table in tables.values())
    ):
        label_types = infer_label_types(
            {split: table.labels for split, table in tables.items()},
            {split: table.ids for split, table in tables.items()},
            untyped_splits=untyped_splits,
            requested=requested,
            decimal=decimal,
            skip=skip,
            known=known or (),
        )
        tables = {
            split: replace(table, labels=tuple(label_types.values[split])) for split, table in tables.items()
        }
        type_notes = list(label_types.notes)
        if label_types.problems:
            return tables, type_notes, [], list(label_types.problems)
    parsed, notes, problems = _parse_values(tables, form, columns, requested, known)
    return parsed, type_notes, notes, problems


def _parse_values(
    tables: Mapping[str, Table],
    form: LabelForm,
    columns: Columns,
    requested: TargetName | Literal["auto"],
    known: Sequence[str] | None,
) -> tuple[dict[str, Table], list[str], list[Problem]]:
    form = form if form.columns else replace(form, columns=(columns.label,))
    kind = requested_target(requested)
    is_whole = kind is not None and kind.is_whole
    declared = next(iter(tables.values())).declared
    cells = {split: table.labels for split, table in tables.items()}
    ids = {split: table.ids for split, table in tables.items()}
    label_values, problems = read_values(cells, ids, form, declared, requested, known)
    if problems:
        return dict(tables), [], problems
    notes = list(label_values.notes)
    values = label_values.values
    if form.normalize and not is_whole:
        values, merge_notes = merge_variants(values, known or declared or ())
        notes += merge_notes
    elif known is None and not is_whole:
        notes += note_variants(_count(values), form)
    read = {split: _with_values(table, split, values, label_values) for split, table in tables.items()}
    problems = _weight_problems(read, columns.weight)
    if columns.weight is not None and not problems:
        read, weight_notes = _with_weights(read, columns.weight)
        notes += weight_notes
    return read, notes, problems


def _with_values(
    table: Table, split: str, values: Mapping[str, Sequence[Any]], label_values: LabelValues
) -> Table:
    return replace(
        table,
        labels=tuple(values[split]),
        declared=label_values.names,
        unknown=None if label_values.unknown is None else tuple(label_values.unknown[split]),
        probabilities=None
        if label_values.probabilities is None
        else tuple(label_values.probabilities[split]),
    )


def _count(values: Mapping[str, Sequence[Any]]) -> Counter[str]:
    """Count the examples of each class; labels that are numbers are not counted."""
    items = [item for labels in values.values() for item in flat_labels(labels)]
    return Counter(label_text(item) for item in items if isinstance(item, str | bool))


def _weight_problems(tables: Mapping[str, Table], column: str | None) -> list[Problem]:
    wrong = [
        (table.ids[row], weight)
        for table in tables.values()
        for row, weight in enumerate(table.weights or ())
        if _weight(weight) is None
    ]
    place = "data.columns.weight"
    if wrong:
        rule, repair = "must be a column of nonnegative numbers", "Write 0 to exclude a row from the loss."
        value = f"{wrong[0][1]!r} in {column!r} for {join_quoted(name for name, _ in wrong)}"
        return [Problem(place, rule, value, repair)]
    if column is not None and not any(_weight(weight) for weight in tables["train"].weights or (1.0,)):
        return [Problem(place, "must be a column with a weight above 0 in train", repr(column))]
    return []


def _weight(value: Any) -> float | None:
    """Return a weight as a number; None if it is not a finite number of at least 0."""
    try:
        if isinstance(value, str) and DECIMAL.fullmatch(value.strip()):
            value = value.strip().replace(",", ".")
        number = float(value) if not isinstance(value, bool) else math.nan
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) and number >= 0 else None


def _with_weights(tables: Mapping[str, Table], column: str) -> tuple[dict[str, Table], list[str]]:
    """Convert the weights to numbers, and return a note on those of the training split.

    Splits without weights get 1, which is enough there because metrics count all examples equally.
    """
    weighted = {}
    for split, table in tables.items():
        given = (1.0,) * len(table) if table.weights is None else table.weights
        weighted[split] = replace(table, weights=tuple(_weight(weight) or 0.0 for weight in given))
    if "train" not in weighted:
        return weighted, []
    weights = weighted["train"].weights or ()
    mean = math.fsum(weights) / len(weights)
    zeros = sum(weight == 0 for weight in weights)
    zero_note = f", {zeros:,} of them 0" if zeros else ""
    return weighted, [
        f"Training examples are weighted in the loss by {column!r}: {min(weights):g} to {max(weights):g}, "
        f"mean {mean:g}{zero_note}. Metrics are not weighted."
    ]


def drop_unlabeled(tables: Mapping[str, Table]) -> tuple[dict[str, Table], list[str]]:
    """Drop the rows without a label.

    Args:
        tables: Table of each split, as returned by ``parse_labels``.

    Returns:
        The remaining rows of each split, and notes on the dropped ones.
    """
    labeled, notes = {}, []
    for split, table in tables.items():
        missing = [row for row, label in enumerate(table.labels) if _is_missing(label)]
        labeled[split] = table
        if missing:
            missing_rows = set(missing)
            labeled[split] = table.take([row for row in range(len(table)) if row not in missing_rows])
            shown = join_quoted(table.ids[row] for row in missing)
            notes.append(f"{len(missing):,} rows of {split} have no label and were skipped: {shown}.")
    return labeled, notes


def _is_missing(label: Any) -> bool:
    return label is None or (isinstance(label, list) and None in label)
