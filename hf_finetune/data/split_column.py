"""Division of examples into splits by a column with the split of each example."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from datasets import ClassLabel, Dataset, concatenate_datasets

from hf_finetune.data.label_form import parse_label_form
from hf_finetune.data.split_names import SPLITS, split_name
from hf_finetune.errors import InputError, Problem, join_quoted, join_words, suggestion

__all__ = ["AUTO", "Division", "divide_by_column", "taken_columns"]

AUTO = "auto"
_COLUMN_NAMES = ("split", "set", "subset")
"""Names of columns that may assign rows to splits, the most likely first."""
_SAMPLE_ROWS = 100
"""Number of rows that are inspected before a whole column."""
_DISABLED = (None, "none")
_PLACE = "data.columns.split"
_DISABLE_HINT = f"Set {_PLACE}: null to ignore the column."


@dataclass(frozen=True)
class Division:
    """Examples divided into splits.

    Attributes:
        splits: Examples of each split.
        origins: For each split, the split that its examples were loaded from.
        notes: Messages to the user on the split column.
        column: Name of the column that divided the examples; None if there is none.
    """

    splits: Mapping[str, Dataset]
    origins: Mapping[str, str]
    notes: tuple[str, ...] = ()
    column: str | None = None


def divide_by_column(
    splits: Mapping[str, Dataset],
    column: str | None = AUTO,
    taken: Collection[str] = (),
    optional: bool = False,
) -> Division:
    """Divide examples into splits by the values of a column.

    Args:
        splits: Splits as loaded.
        column: Name of the column. ``auto`` uses, if there is only one split, a column named split, set or subset that
            has split names among its values, else a column whose values are all split names. None or ``none`` returns
            the splits as loaded.
        taken: Columns that are used for something else.
        optional: Whether the named column may be missing.

    Returns:
        The new splits, the split from which each was loaded, and notes.

    Raises:
        InputError: If the column is missing, or if one of its values is not a split name.
    """
    as_loaded = {split: split for split in splits}
    if column in _DISABLED:
        return Division(splits, as_loaded)
    columns_by_split = {
        split: _candidate_columns(dataset, column, taken) for split, dataset in splits.items()
    }
    if column != AUTO and not optional and not any(columns_by_split.values()):
        names = next(iter(splits.values())).column_names
        repair = suggestion(str(column), names)
        raise InputError(Problem(_PLACE, "must be a column of the data", repr(column), repair))
    chosen = next((names[0] for names in columns_by_split.values() if names), None)
    if chosen is None:
        notes = _note_unused(splits) if column == AUTO and "split" not in taken else ()
        return Division(splits, as_loaded, notes)
    values = {
        split: _values(splits[split], chosen) for split, names in columns_by_split.items() if chosen in names
    }
    if len(splits) > 1 and column == AUTO:
        return Division(splits, as_loaded, _note_disagreement(values, chosen))
    problem = _unknown_split_problem(values, chosen)
    if problem is not None:
        raise InputError(problem)
    parts: dict[str, list[Dataset]] = {}
    origins: dict[str, str] = {}
    for split, dataset in splits.items():
        if split not in values:
            parts.setdefault(split, []).append(dataset)
            origins.setdefault(split, split)
            continue
        for name in dict.fromkeys(values[split]):
            rows = [row for row, value in enumerate(values[split]) if value == name]
            parts.setdefault(str(split_name(str(name))), []).append(dataset.select(rows))
            origins.setdefault(str(split_name(str(name))), split)
    divided = {
        split: parts[split][0] if len(parts[split]) == 1 else concatenate_datasets(parts[split])
        for split in SPLITS
        if split in parts
    }
    counts = join_words(f"{len(dataset)} of {split}" for split, dataset in divided.items())
    note = f"The examples are split by the column {chosen!r}: {counts}. {_DISABLE_HINT}"
    return Division(divided, origins, (note,), chosen)


def taken_columns(columns: Mapping[str, Any]) -> set[str]:
    """Return the columns that a recipe uses for other purposes than the split."""
    label = parse_label_form(columns.get("label")).columns
    return {name for key, name in columns.items() if key != "split" and isinstance(name, str)} | {*label}


def _candidate_columns(dataset: Dataset, column: str | None, taken: Collection[str]) -> list[str]:
    """Return the columns of a dataset that may contain split names, the most likely first."""
    if column != AUTO:
        return [str(column)] if column in dataset.column_names else []
    candidates = [
        name
        for wanted in _COLUMN_NAMES
        for name in dataset.column_names
        if name.strip().lower() == wanted and name not in taken
    ]
    named = [
        name for name in candidates if any(split_name(str(value)) for value in set(_values(dataset, name)))
    ]
    return named or _split_columns(dataset, [name for name in dataset.column_names if name not in taken])


def _split_columns(dataset: Dataset, columns: Sequence[str]) -> list[str]:
    """Return the columns in which every value is a split name, including train and at least one other split."""
    features = dataset.features
    columns = [
        name
        for name in columns
        if isinstance(features[name], ClassLabel)
        or getattr(features[name], "dtype", None) in ("string", "large_string")
    ]
    if not columns:
        return []
    # Select all columns at once: every selection copies the schema of the whole table.
    head = dataset.select_columns(columns).with_format("arrow")[:_SAMPLE_ROWS]
    likely = [name for name in columns if None not in _split_names(head[name], features[name])]
    if not likely:
        return []
    table = dataset.select_columns(likely).with_format("arrow")[:]
    by_column = {name: _split_names(table[name], features[name]) for name in likely}
    return [name for name, splits in by_column.items() if None not in splits and {"train"} < splits]


def _split_names(column: pa.ChunkedArray, feature: Any) -> set[str | None]:
    """Return the splits that the values of a column denote; contains None if a value is not a split name."""
    return {split_name(str(value)) for value in _names(pc.unique(column).to_pylist(), feature)}


def _values(dataset: Dataset, column: str) -> list[Any]:
    """Return the values of a column as stripped strings, None for missing values."""
    return _names(dataset[column][:], dataset.features[column])


def _names(values: Iterable[Any], feature: Any) -> list[Any]:
    if isinstance(feature, ClassLabel):
        values = [feature.int2str(value) if value is not None and value >= 0 else None for value in values]
    return [(str(value).strip() or None) if value is not None else None for value in values]


def _unknown_split_problem(values: Mapping[str, Sequence[Any]], column: str) -> Problem | None:
    missing = [
        f"{split}:{row}" for split, names in values.items() for row, name in enumerate(names) if name is None
    ]
    unknown = dict.fromkeys(
        name for names in values.values() for name in names if name is not None and split_name(name) is None
    )
    if not missing and not unknown:
        return None
    value = f"{column!r} with {join_quoted(unknown)}" if unknown else f"empty cells in {join_quoted(missing)}"
    repair = f"Known: train, validation (val, valid, dev) and test. {_DISABLE_HINT}"
    return Problem(_PLACE, "must be a column with a split name in every row", value, repair)


def _note_unused(splits: Mapping[str, Dataset]) -> tuple[str, ...]:
    """Return a note if a column is named split, although its values are not split names."""
    for dataset in splits.values():
        if "split" in dataset.column_names:
            shown = join_quoted(dict.fromkeys(str(value) for value in _values(dataset, "split")), most=4)
            return (f"The column 'split' was not used, because its values are not names of splits: {shown}.",)
    return ()


def _note_disagreement(values: Mapping[str, Sequence[Any]], column: str) -> tuple[str, ...]:
    """Return a note if the column contradicts the splits that the examples were loaded from."""
    if all(split_name(str(name)) == split for split, names in values.items() for name in set(names)):
        return ()
    return (
        f"The column {column!r} was not used, because the data already has splits. Set {_PLACE}: {column} "
        "to split it by the column instead.",
    )
