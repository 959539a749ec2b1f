"""Parsing of label cells: class names, numbers, separated classes, lists, mappings, or one column per class."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from hf_finetune.data.label_form import LabelForm
from hf_finetune.data.label_literals import looks_like_literal, read_literal
from hf_finetune.data.label_separator import likely_separator, split_cell
from hf_finetune.data.label_vectors import Cells, LabelValues, LabelVectors, read_label_vectors
from hf_finetune.errors import Problem, join_quoted
from hf_finetune.targets import requested_target
from hf_finetune.targets.labels import TargetName
from hf_finetune.targets.names import label_text
from hf_finetune.targets.reading import LABEL_LOCATION, rows_where

__all__ = ["read_values"]


def read_values(
    cells: Cells,
    ids: Mapping[str, Sequence[str]],
    form: LabelForm,
    declared: Sequence[str] | None = None,
    requested: TargetName | Literal["auto"] = "auto",
    known: Sequence[str] | None = None,
) -> tuple[LabelValues, list[Problem]]:
    """Parse the labels of all splits, which must have the same format.

    Args:
        cells: Raw cell of the label column of each example, or a tuple of the cells of all label columns.
        ids: Example ids of each split, for messages.
        form: Label format declared by the recipe.
        declared: Class names declared by the type of the column.
        requested: Label type to read; ``auto`` infers it.
        known: Classes of a trained model, used to name the positions of lists with one value per class.

    Returns:
        The labels, and problems.
    """
    names = tuple(declared) if declared is not None else None
    kind = requested_target(requested)
    if kind is not None and kind.is_whole:
        return LabelValues({split: [kind.read_cell(cell) for cell in cells[split]] for split in cells}), []
    if form.one_column_per_class:
        rows = {split: list(cells[split]) for split in cells}
        vectors = LabelVectors(form.columns, rows, f"the columns {join_quoted(form.columns)}")
        return read_label_vectors(vectors, ids, requested)
    if form.separator is not None:
        return _read_separated(cells, ids, form)
    cells, literal_problems = _read_literals(cells, ids, requested)
    if literal_problems:
        return LabelValues({}), literal_problems
    present = [cell for split in cells for cell in cells[split] if cell is not None]
    if present and all(isinstance(cell, dict) for cell in present):
        return read_label_vectors(_from_mappings(cells), ids, requested)
    width = _vector_length(present, declared)
    if form.classes or (width and _needs_class_names(present)):
        return _read_lists(cells, ids, form, known, requested, width, present)
    values = LabelValues({split: list(cells[split]) for split in cells}, names=names)
    texts = [cell for cell in present if isinstance(cell, str)]
    if not _is_exclusive(requested) and declared is None and len(texts) == len(present):
        notes, problems = _check_separator(texts, form, requested)
        return replace(values, notes=notes), problems
    return values, []


def _read_separated(
    cells: Cells, ids: Mapping[str, Sequence[str]], form: LabelForm
) -> tuple[LabelValues, list[Problem]]:
    separator = str(form.separator)
    lists = rows_where(cells, ids, lambda cell: isinstance(cell, list | dict))
    if lists:
        rule = "must contain strings if a separator is set"
        repair = "Remove data.columns.label.separator, which does not apply to lists."
        return LabelValues({}), [Problem(LABEL_LOCATION, rule, f"lists in {join_quoted(lists)}", repair)]
    empty: Any = [] if form.empty == "none" else None
    values: dict[str, list[Any]] = {}
    for split in cells:
        texts = [None if cell is None else split_cell(label_text(cell), separator) for cell in cells[split]]
        values[split] = [labels or empty for labels in texts]
    notes = []
    present = [cell for split in cells for cell in cells[split] if cell is not None]
    if present and not any(separator in label_text(cell) for cell in present):
        notes.append(f"No label cell contains the separator {separator!r}: each has one class.")
    bare = sum(labels == [] for split in values for labels in values[split])
    if bare:
        notes.append(f"{bare:,} rows have an empty label cell and are read as having none of the classes.")
    return LabelValues(values, notes=tuple(notes)), []


def _read_literals(
    cells: Cells, ids: Mapping[str, Sequence[str]], requested: str
) -> tuple[Cells, list[Problem]]:
    """Parse lists and mappings that are printed as text, if all text cells of the column contain them."""
    texts = [cell for split in cells for cell in cells[split] if isinstance(cell, str)]
    if not any(looks_like_literal(text) for text in texts):
        return cells, []
    parsed = {text: read_literal(text) for text in set(texts) if looks_like_literal(text)}
    if not any(literal is not None for literal in parsed.values()) and len(parsed) < len(set(texts)):
        return cells, []  # some class names look like lists
    if _is_exclusive(requested) and not all(_is_numeric(parsed.get(text)) for text in texts):
        return cells, []
    invalid = rows_where(cells, ids, lambda cell: isinstance(cell, str) and parsed.get(cell) is None)
    if invalid:
        example = next(text for text in texts if parsed.get(text) is None)
        rule = "must contain a valid list in every row, or in no row"
        value = f"{example[:60]!r} in {join_quoted(invalid)}"
        advice = "set data.target: single_label if each cell is a single class name"
        return cells, [Problem(LABEL_LOCATION, rule, value, f"Write ['a', 'b'] in every row, or {advice}.")]
    read = {}
    for split in cells:
        read[split] = [parsed[cell] if isinstance(cell, str) else cell for cell in cells[split]]
    return read, []


def _is_exclusive(requested: str) -> bool:
    kind = requested_target(requested)
    return kind is not None and kind.is_exclusive


def _is_numeric(literal: list[Any] | dict[str, Any] | None) -> bool:
    items = literal.values() if isinstance(literal, dict) else literal or ()
    return bool(items) and all(isinstance(item, int | float) for item in items)


def _from_mappings(cells: Cells) -> LabelVectors:
    present = [cell for split in cells for cell in cells[split] if cell is not None]
    names = tuple(dict.fromkeys(str(name) for cell in present for name in cell))
    values = [value for cell in present for value in cell.values()]
    fractions = any(isinstance(value, float) and not value.is_integer() for value in values)
    rows: dict[str, list[Sequence[Any] | None]] = {
        split: [None if cell is None else [cell.get(name) for name in names] for cell in cells[split]]
        for split in cells
    }
    where = f"mappings with a value for each of {join_quoted(names)}"
    return LabelVectors(names, rows, where, 0.0 if fractions else None)


def _vector_length(present: Sequence[Any], declared: Sequence[str] | None) -> int:
    """Return the common length of lists of only numbers or None; 0 if the cells are not such lists."""
    if declared is not None or not present or not all(isinstance(cell, list) for cell in present):
        return 0
    lengths = {len(cell) for cell in present}
    numbers = all(item is None or isinstance(item, int | float) for cell in present for item in cell)
    return lengths.pop() if len(lengths) == 1 and numbers else 0


def _needs_class_names(present: Sequence[Sequence[Any]]) -> bool:
    """Return whether lists of numbers, all of one length, are label vectors with one value per class.

    Lists of at least two zeros and ones are: read as lists of classes, they would assign the same classes to every row.
    Lists with fractions are probabilities.
    """
    if len(present[0]) < 2:
        return False
    items = [item for cell in present for item in cell if item is not None]
    fractions = any(isinstance(item, float) and not item.is_integer() for item in items)
    return fractions or all(item in (0, 1) for item in items)


def _read_lists(
    cells: Cells,
    ids: Mapping[str, Sequence[str]],
    form: LabelForm,
    known: Sequence[str] | None,
    requested: TargetName | Literal["auto"],
    width: int,
    present: Sequence[Any],
) -> tuple[LabelValues, list[Problem]]:
    names = form.classes or (tuple(known) if known is not None and len(known) == width else ())
    if not names:
        shown = form.as_recipe_field(classes="[first, second, ...]")
        repair = f"Set {shown}, with {width} names in the order of the positions."
        rule = "must have class names for the positions of its lists"
        return LabelValues({}), [
            Problem(LABEL_LOCATION, rule, f"lists of {width} values, such as {present[0]!r}", repair)
        ]
    wrong = rows_where(
        cells, ids, lambda cell: cell is not None and not (isinstance(cell, list) and len(cell) == len(names))
    )
    if wrong:
        rule = f"must contain lists of {len(names)} values, one for each of data.columns.label.classes"
        return LabelValues({}), [Problem(LABEL_LOCATION, rule, f"other values in {join_quoted(wrong)}")]
    rows = {split: list(cells[split]) for split in cells}
    return read_label_vectors(
        LabelVectors(names, rows, f"lists with a value for each of {join_quoted(names)}"), ids, requested
    )


def _check_separator(
    texts: Sequence[str], form: LabelForm, requested: str
) -> tuple[tuple[str, ...], list[Problem]]:
    """Return a note or a problem if the cells probably contain several labels, or must because of the target."""
    likely = likely_separator(texts)
    kind = requested_target(requested)
    if kind is not None and kind.has_several_classes:
        separator = likely.separator if likely else ","
        repair = f"Set the separator of the classes: {_with_separator(form, separator)}."
        rule = f"must contain several classes per cell if data.target is {requested}"
        value = f"texts, such as {(likely.example if likely else texts[0])!r}" if texts else "none"
        return (), [Problem(LABEL_LOCATION, rule, value, repair)]
    if likely is None:
        return (), []
    parts = " and ".join(map(repr, likely.parts))
    several = f"If a cell contains several labels, set {_with_separator(form, likely.separator)}"
    if not likely.is_certain:
        where = f"{likely.rows:,} rows contain {likely.separator!r}, such as {likely.example!r}"
        note = f"{where}: each such cell is read as one class. {several}."
        return (note,), []
    value = (
        f"{likely.rows:,} rows with {likely.separator!r}, such as {likely.example!r}; {parts} are also labels"
    )
    repair = f"{several}; if such a cell is a single class name, set data.target: single_label."
    return (), [
        Problem(LABEL_LOCATION, "must be unambiguous: one label or several labels per cell", value, repair)
    ]


def _with_separator(form: LabelForm, separator: str) -> str:
    return form.as_recipe_field(separator=json.dumps(separator))
