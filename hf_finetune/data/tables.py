"""Splits as tables of canonical columns, with the labels, groups, weights and hashes of their rows."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset, Features, List, Value

from hf_finetune.data.column_types import guess_features
from hf_finetune.data.columns import Columns, find_columns
from hf_finetune.data.file_column import open_files
from hf_finetune.data.label_vectors import is_binary_column
from hf_finetune.data.load import Source
from hf_finetune.data.slices import add_group, add_slices, slice_problems, text_slices
from hf_finetune.data.split_names import SPLITS
from hf_finetune.errors import InputError, Problem, join_quoted
from hf_finetune.targets import TARGETS
from hf_finetune.targets.labels import TRAINING_LABEL, UNKNOWN, TargetName, read_labels, training_labels
from hf_finetune.tasks import Modality, find_modality

__all__ = [
    "ROW_VALUES",
    "Table",
    "choose_common_columns",
    "content_keys",
    "hash_rows",
    "is_unlabeled",
    "read_table",
]

_SAMPLE_ROWS = 1000
_COLUMNS_SHOWN = 20
ROW_VALUES = ("ids", "labels", "groups", "weights", "unknown", "probabilities", "contents", "keys")
"""Attributes of ``Table`` with a value for each row."""


@dataclass(frozen=True)
class Table:
    """One split as a dataset, with additional values of each row.

    Attributes:
        dataset: Columns ``id``, those of the modality, and ``label`` once it is encoded.
        ids: Name of each row.
        labels: Label of each row: the plain value, or the encoded one after ``with_labels``.
        declared: Class names that the label column declares.
        groups: Group of each row; None without a group column.
        weights: Weight of each row in the loss; None if all weights are equal.
        unknown: For each row, the classes for which the data states neither presence nor absence; None if there are
            none in any row.
        probabilities: For each row, the class probabilities by class name; None if labels are not probabilities.
        contents: SHA-256 of the exact content of each example. None for an image file that cannot be read.
            Empty until ``hash_rows`` fills it in.
        keys: Hash of each example that ignores case and white space of texts; equal keys mark copies. None for
            examples that cannot be compared. Empty until ``hash_rows`` fills it in.
        notes: Messages to the user on the interpretation of image paths.
        full_dataset: Dataset from which ``take`` selected the rows; None if it is not known.
        rows: Row numbers in ``full_dataset``.
    """

    dataset: Dataset
    ids: tuple[str, ...]
    labels: tuple[Any, ...]
    declared: tuple[str, ...] | None
    groups: tuple[Any, ...] | None = None
    weights: tuple[Any, ...] | None = None
    unknown: tuple[Sequence[str], ...] | None = None
    probabilities: tuple[Mapping[str, float] | None, ...] | None = None
    contents: tuple[str | None, ...] = ()
    keys: tuple[str | None, ...] = ()
    notes: tuple[str, ...] = ()
    full_dataset: Dataset | None = None
    rows: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, rows: Sequence[int] | np.ndarray) -> "Table":
        """Return a table of the given rows, in this order."""
        chosen = [int(row) for row in rows]
        values_by_name = {}
        for name in (*ROW_VALUES, "rows"):
            values = getattr(self, name)
            values_by_name[name] = tuple(values[row] for row in chosen) if values else values
        return replace(self, dataset=self.dataset.select(chosen), **values_by_name)

    def with_labels(self, labels: Sequence[Any], target: TargetName, label_names: Sequence[str]) -> "Table":
        """Return a table with encoded labels, in ``labels`` and as the column ``label``.

        Multi-label data with unknown classes also gets the column ``unknown``, and single-label data with weights or
        probabilities the column ``training_label``: the probability of each class times the weight of the example.

        Args:
            labels: Encoded label of each row.
            target: Label type.
            label_names: Class names in index order.
        """
        feature = TARGETS[target].feature(label_names)
        columns: dict[str, tuple[list[Any], Any]] = {"label": (list(labels), feature)}
        if TARGETS[target].has_several_classes and self.unknown is not None:
            places = {name: index for index, name in enumerate(label_names)}
            columns[UNKNOWN] = [sorted(places[name] for name in names) for names in self.unknown], feature
        elif TARGETS[target].is_exclusive and (self.weights is not None or self.probabilities is not None):
            weighted = training_labels(labels, label_names, self.weights, self.probabilities)
            columns[TRAINING_LABEL] = weighted, List(Value("float32"))
        # Adding a column to selected rows makes datasets rewrite all of their images: add it to the whole dataset.
        full_dataset = (
            self.full_dataset
            if self.full_dataset is not None and len(self.full_dataset) > len(self) > 0
            else None
        )
        dataset = self.dataset if full_dataset is None else full_dataset
        for name, (values, kind) in columns.items():
            filled = values
            if full_dataset is not None:
                filled = [values[0]] * len(full_dataset)
                for row, value in zip(self.rows, values, strict=True):
                    filled[row] = value
            dataset = dataset.add_column(name, filled, feature=kind)
        if full_dataset is not None:
            dataset = dataset.select(self.rows)
        return replace(self, dataset=dataset, labels=tuple(labels))


def choose_common_columns(
    source: Source,
    modality: Modality,
    named: Mapping[str, str | None],
    group: str | None,
    slices: Sequence[str] = (),
) -> tuple[Columns, tuple[str, ...]]:
    """Choose the columns to use, by the train split or else the first one, and check that all splits have them.

    Args:
        source: Loaded data.
        modality: Kind of input.
        named: Column names by role, as in a recipe; None is inferred.
        group: Group column of the splits; None if there is none.
        slices: Columns to break metrics down by.

    Returns:
        The columns, and notes on inferred columns.

    Raises:
        InputError: If a split is empty, or if a column is missing, ambiguous or unusable.
    """
    empty = [split for split, dataset in source.splits.items() if len(dataset) == 0]
    if empty:
        raise InputError([Problem(f"The {split} split", "must not be empty") for split in empty])
    ordered = {split: source.splits[split] for split in SPLITS if split in source.splits}
    features = guess_features(ordered, source.untyped_splits)
    for name, feature in next(iter(ordered.values())).features.items():
        # File names may look like numbers (17 for 17.png), and so may texts in columns that the recipe names.
        if name in map(named.get, modality.columns) or (
            modality.opens_files and name.lower() in modality.roles[0].usual_names
        ):
            features[name] = feature
    try:
        used, notes = find_columns(features, modality, _without_blanks(named, features), group)
    except InputError as error:
        column_problems = [_with_class_columns(problem, ordered.values()) for problem in error.problems]
        raise InputError([*column_problems, *source.header_problems]) from error
    needed = [name for name in (*used.input_columns(), used.group) if name is not None]
    problems = slice_problems(source.splits, slices)
    problems += _label_column_problems(source, used)
    in_use = (*needed, used.label, *used.labels, used.weight, *slices)
    problems += [problem for name, problem in source.column_problems.items() if name in in_use]
    for split, dataset in source.splits.items():
        value = f"only {join_quoted(dataset.column_names)}"
        missing = [name for name in needed if name not in dataset.column_names]
        problems += [
            Problem(f"The {split} split", f"must have the column {name!r}", value) for name in missing
        ]
    if problems:
        raise InputError(problems)
    return replace(
        used,
        groups_recur=source.groups_recur,
        slices=tuple(slices),
        text_slices=text_slices(source.splits, slices),
    ), notes


def _with_class_columns(problem: Problem, splits: Iterable[Dataset]) -> Problem:
    """Suggest the columns that look like one class each if a problem reports a missing label column."""
    if problem.place != "data.columns.label" or "no column" not in problem.rule:
        return problem
    dataset = next(iter(splits))
    sample = dataset.select(range(min(len(dataset), _SAMPLE_ROWS)))
    names = [name for name in dataset.column_names if is_binary_column(sample[name][:])]
    if len(names) < 2:
        return problem
    shown = ", ".join(names[:_COLUMNS_SHOWN]) + (", ..." if len(names) > _COLUMNS_SHOWN else "")
    repair = f"If each class has a column of its own, list them: columns: {{label: [{shown}]}}."
    return replace(problem, repair=repair)


def _without_blanks(named: Mapping[str, Any], features: Features) -> dict[str, Any]:
    """Return column names, stripped of surrounding white space if the data has only the stripped name."""
    return {
        key: name.strip()
        if isinstance(name, str) and name not in features and name.strip() in features
        else name
        for key, name in named.items()
    }


def _label_column_problems(source: Source, used: Columns) -> list[Problem]:
    """Return problems of splits with only some of the class columns, and of a train split without the weights."""
    problems = []
    for split, dataset in source.splits.items():
        absent = [name for name in used.labels if name not in dataset.column_names]
        if absent and len(absent) < len(used.labels):
            rule = "must have all columns of data.columns.label, or none"
            repair = "Add a column of empty cells for each class with unknown labels."
            problems.append(Problem(f"The {split} split", rule, f"no column {join_quoted(absent)}", repair))
        if split == "train" and used.weight is not None and used.weight not in dataset.column_names:
            problems.append(Problem("The train split", f"must have the column {used.weight!r}"))
    return problems


def read_table(
    dataset: Dataset, columns: Columns, split: str, root: Path | None, files: Sequence[str] | None = None
) -> Table:
    """Convert a split to a table of canonical columns, with plain labels and without hashes.

    Args:
        dataset: Split as loaded.
        columns: Columns to use. A split without the label column has None for every label.
        split: Name of the split; examples that are not single files get the ids ``train:0``, ``train:1``, ...
        root: Folder that relative image paths are resolved against. None for Hub data.
        files: Paths of texts that are stored as one file each, used as ids; None for other data.

    Returns:
        Table with unencoded labels; ``contents`` and ``keys`` are empty.
    """
    labels: list[Any] = [None] * len(dataset)
    declared = None
    if columns.labels and columns.label in dataset.column_names:
        labels = _rows_of(dataset, columns.labels)
    elif columns.label in dataset.column_names:
        labels, declared = read_labels(dataset, columns.label)
    weights = None
    if columns.weight is not None and columns.weight in dataset.column_names:
        weights = tuple(dataset[columns.weight][:])
    groups = tuple(dataset[columns.group][:]) if columns.group is not None else None
    notes: list[str] = []
    modality = find_modality(columns.inputs)
    inputs = dataset.select_columns(list(columns.input_columns()))
    inputs = inputs.rename_columns({name: role for role, name in columns.inputs.items() if name is not None})
    paths: list[str | None] = [None] * len(dataset) if files is None else list(files)
    if modality.opens_files:
        inputs, paths, notes = open_files(inputs, modality, root, split)
    else:
        inputs = modality.stored_form(inputs)
    ids = tuple(path if path is not None else f"{split}:{row}" for row, path in enumerate(paths))
    inputs = inputs.add_column("id", list(ids), feature=Value("string"))
    inputs = add_slices(inputs, dataset, columns.slices, columns.text_slices)
    if groups is not None:
        inputs = add_group(inputs, str(columns.group), groups)
    rows = tuple(range(len(ids)))
    table = Table(inputs, ids, tuple(labels), declared, groups, weights, notes=tuple(notes))
    return replace(table, full_dataset=inputs, rows=rows)


def _rows_of(dataset: Dataset, columns: Sequence[str]) -> list[Any]:
    """Return a tuple of the values of several columns for each row; None for a row without any value."""
    by_column = [read_labels(dataset, name)[0] for name in columns]
    rows = zip(*by_column, strict=True)
    return [None if all(value is None for value in row) else row for row in rows]


def is_unlabeled(table: Table) -> bool:
    """Return whether no row has a label. -1 counts as missing, as benchmarks publish it for their test labels."""
    return all(
        value is None or value in (-1, "-1")
        for label in table.labels
        for value in (label if isinstance(label, tuple) else (label,))
    )


def hash_rows(table: Table) -> Table:
    """Return the table with ``contents`` and ``keys``. Each file is read once, and none is decoded."""
    contents, keys = find_modality(table.dataset.column_names).hashes(table.dataset)
    return replace(table, contents=tuple(contents), keys=tuple(keys))


def content_keys(dataset: Dataset) -> tuple[str | None, ...]:
    """Return the key of each input, equal for copies: SHA-256 of the file or of the normalized texts.

    Args:
        dataset: Split with the columns of ``LabeledData``.
    """
    return tuple(find_modality(dataset.column_names).hashes(dataset)[1])
