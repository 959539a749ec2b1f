"""Slice columns, by whose values metrics are broken down, and group columns, both stored with the examples."""

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from hf_finetune.data.split_names import SPLITS
from hf_finetune.errors import MAX_LISTED_PROBLEMS, Problem, join_quoted

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = [
    "GROUP",
    "MAX_NUMERIC_VALUES",
    "MAX_TEXT_VALUES",
    "SLICE",
    "add_group",
    "add_slices",
    "group_of",
    "group_or_id",
    "number_name",
    "slice_columns",
    "slice_problems",
    "text_slices",
    "value_problems",
]

SLICE = "slice:"
"""Prefix of the name of a slice column in a split; the name of the column in the data follows."""
GROUP = "group:"
"""Prefix of the name of the group column in a split; the name of the column in the data follows."""
MAX_TEXT_VALUES = 50
"""Maximum number of distinct values of a text column, so that they fit into a table."""
MAX_NUMERIC_VALUES = 10
"""Maximum count of distinct numbers for which each number is a slice; with more, the slices are quartiles."""


def slice_columns(dataset: "Dataset") -> list[str]:
    """Return the names of a split's slice columns, without the prefix."""
    return [name.removeprefix(SLICE) for name in dataset.column_names if name.startswith(SLICE)]


def slice_problems(splits: "Mapping[str, Dataset]", names: Sequence[str]) -> list[Problem]:
    """Return the problems of slice columns that a split lacks or that do not contain one value per example.

    Args:
        splits: Splits as loaded.
        names: Names of the slice columns in the data.
    """
    from datasets import ClassLabel, Value

    problems = []
    for index, name in enumerate(names):
        place = f"evaluation.slices[{index}]"
        for split in sorted(splits, key=SPLITS.index):
            dataset = splits[split]
            if name not in dataset.column_names:
                rule = f"must be a column of the {split} split"
                repair = f"Its columns are {join_quoted(dataset.column_names, MAX_LISTED_PROBLEMS)}."
                problems.append(Problem(place, rule, repr(name), repair))
                break
            if not isinstance(dataset.features[name], Value | ClassLabel):
                kind = type(dataset.features[name]).__name__
                rule = "must contain one text or number for each example"
                problems.append(Problem(place, rule, f"{name!r} of type {kind}"))
                break
    return problems


def value_problems(splits: "Mapping[str, Dataset]", names: Sequence[str]) -> list[Problem]:
    """Return a problem for each slice column with more than ``MAX_TEXT_VALUES`` texts.

    So many values would identify single examples.

    Args:
        splits: Splits with slice columns.
        names: Names of the slice columns in the data.
    """
    problems = []
    for index, name in enumerate(names):
        values = {
            value for dataset in splits.values() for value in dataset[SLICE + name][:] if value is not None
        }
        texts = [value for value in values if isinstance(value, str)]
        if len(texts) > MAX_TEXT_VALUES:
            shown = f"{len(values)} values of {name!r}: {join_quoted(sorted(texts))}"
            rule = f"must be a column with at most {MAX_TEXT_VALUES} distinct values, or a column of numbers"
            problems.append(Problem(f"evaluation.slices[{index}]", rule, shown))
    return problems


def number_name(value: float) -> str:
    """Return a number as text in full precision, so that different numbers have different names: ``2019``, ``0.5``."""
    return str(int(value)) if float(value).is_integer() else repr(float(value))


def text_slices(splits: "Mapping[str, Dataset]", names: Sequence[str]) -> frozenset[str]:
    """Return the columns that contain texts in any split; numbers of other splits are then read as texts, too."""
    return frozenset(
        name
        for name in names
        if any(isinstance(value, str) for dataset in splits.values() for value in _plain(dataset, name))
    )


def add_slices(
    inputs: "Dataset", dataset: "Dataset", names: Sequence[str], texts: Collection[str] = ()
) -> "Dataset":
    """Add slice columns to a split. Missing values (null, empty text, nan) become None.

    Args:
        inputs: Split to extend.
        dataset: The same rows as loaded, with the slice columns.
        names: Names of the slice columns in ``dataset``.
        texts: Columns among ``names`` that contain texts, from ``text_slices``.

    Returns:
        The split with a column ``slice:NAME`` for each name.
    """
    from datasets import Value

    for name in names:
        values = _plain(dataset, name)
        if name in texts:
            values = [number_name(value) if isinstance(value, float) else value for value in values]
        feature = Value("string" if name in texts else "float64")
        inputs = inputs.add_column(SLICE + name, values, feature=feature)
    return inputs


def add_group(inputs: "Dataset", name: str, groups: Sequence[Any]) -> "Dataset":
    """Add the group column, as texts, to a split.

    Args:
        inputs: Split to extend.
        name: Name of the group column in the data.
        groups: Group of each example; None for an example without one.

    Returns:
        The split with a column ``group:NAME``.
    """
    from datasets import Value

    texts = [None if group is None else str(group) for group in groups]
    return inputs.add_column(GROUP + name, texts, feature=Value("string"))


def group_of(dataset: "Dataset") -> tuple[str, tuple[str, ...]] | None:
    """Return the name of a split's group column and the group of each example; None if it has no such column.

    Each example without a group forms its own group.
    """
    for name in dataset.column_names:
        if name.startswith(GROUP):
            groups = enumerate(dataset[name][:])
            named = tuple(f"no group {row}" if group is None else group for row, group in groups)
            return name.removeprefix(GROUP), named
    return None


def group_or_id(dataset: "Dataset") -> tuple[str, ...]:
    """Return the group of each example, or its id if it has no group: the same in every selection of examples.

    Args:
        dataset: Split of labeled data.
    """
    ids = dataset["id"][:]
    column = next((name for name in dataset.column_names if name.startswith(GROUP)), None)
    groups = [None] * len(ids) if column is None else dataset[column][:]
    return tuple(name if group is None else group for name, group in zip(ids, groups, strict=True))


def _plain(dataset: "Dataset", name: str) -> list[Any]:
    from datasets import ClassLabel

    feature: Any = dataset.features[name]
    values = list(dataset[name][:])
    if isinstance(feature, ClassLabel):
        return [None if value is None or value < 0 else feature.int2str(value) for value in values]
    if all(
        value is None or (isinstance(value, int | float) and not isinstance(value, bool)) for value in values
    ):
        return [None if value is None or np.isnan(value) else float(value) for value in values]
    return [None if value is None or str(value).strip() == "" else _text(value) for value in values]


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
