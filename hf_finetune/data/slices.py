"""Columns by whose values a model is judged: found in the data, and carried beside the examples."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from datasets import ClassLabel, Dataset, Value

from hf_finetune.data.formatting import MOST_SHOWN, quoted
from hf_finetune.data.locate import SPLITS
from hf_finetune.errors import Problem

__all__ = [
    "DISTINCT",
    "GROUP",
    "MOST",
    "SLICE",
    "add_group",
    "add_slices",
    "group_of",
    "number_name",
    "slice_columns",
    "slice_problems",
    "text_slices",
    "value_problems",
]

SLICE = "slice:"
"""What the name of such a column begins with in a split; its name in the data follows."""
GROUP = "group:"
"""What the name of the column of groups begins with in a split; its name in the data follows."""
MOST = 50
"""Values of a column of texts that a table can hold."""
DISTINCT = 10
"""Different numbers up to which each is a slice; of more, quartiles are made."""


def slice_columns(dataset: Dataset) -> list[str]:
    """Name the columns of the data that a split carries."""
    return [name.removeprefix(SLICE) for name in dataset.column_names if name.startswith(SLICE)]


def slice_problems(splits: Mapping[str, Dataset], names: Sequence[str]) -> list[Problem]:
    """Check that every split has the columns, and that they hold one value for each example.

    Args:
        splits: As they were loaded.
        names: Of the columns.
    """
    problems = []
    for index, name in enumerate(names):
        place = f"evaluation.slices[{index}]"
        for split in sorted(splits, key=SPLITS.index):
            dataset = splits[split]
            if name not in dataset.column_names:
                rule = f"must be a column of the {split} split"
                repair = f"Its columns are {quoted(dataset.column_names, MOST_SHOWN)}."
                problems.append(Problem(place, rule, repr(name), repair))
                break
            if not isinstance(dataset.features[name], Value | ClassLabel):
                kind = type(dataset.features[name]).__name__
                rule = "must hold one text or number for each example"
                problems.append(Problem(place, rule, f"{name!r} of type {kind}"))
                break
    return problems


def value_problems(splits: Mapping[str, Dataset], names: Sequence[str]) -> list[Problem]:
    """Refuse a column of so many texts that it tells apart examples and not kinds of them."""
    problems = []
    for index, name in enumerate(names):
        values = {
            value for dataset in splits.values() for value in dataset[SLICE + name][:] if value is not None
        }
        texts = [value for value in values if isinstance(value, str)]
        if len(texts) > MOST:
            shown = f"{len(values)} of {name!r}: {quoted(sorted(texts))}"
            rule = f"must be a column of at most {MOST} values, or of numbers"
            problems.append(Problem(f"evaluation.slices[{index}]", rule, shown))
    return problems


def number_name(value: float) -> str:
    """Write a number in full, so that no two have one name: ``2019``, ``0.5``."""
    return str(int(value)) if float(value).is_integer() else repr(float(value))


def text_slices(splits: Mapping[str, Dataset], names: Sequence[str]) -> frozenset[str]:
    """Name the columns that hold a text in some split: there, numbers of another split are texts too."""
    return frozenset(
        name
        for name in names
        if any(isinstance(value, str) for dataset in splits.values() for value in _plain(dataset, name))
    )


def add_slices(
    inputs: Dataset, dataset: Dataset, names: Sequence[str], texts: Collection[str] = ()
) -> Dataset:
    """Add columns of the data to a split. A missing value is None there: no value, an empty text, not a number.

    Args:
        inputs: The split.
        dataset: The same rows as they were loaded.
        names: Of the columns.
        texts: Those of them that hold texts, from ``text_slices``.
    """
    for name in names:
        values = _plain(dataset, name)
        if name in texts:
            values = [number_name(value) if isinstance(value, float) else value for value in values]
        feature = Value("string" if name in texts else "float64")
        inputs = inputs.add_column(SLICE + name, values, feature=feature)
    return inputs


def add_group(inputs: Dataset, name: str, groups: Sequence[Any]) -> Dataset:
    """Add the column of groups, as texts, to a split.

    Args:
        inputs: The split.
        name: Of the column in the data.
        groups: Of each example; None where there is none.
    """
    texts = [None if group is None else str(group) for group in groups]
    return inputs.add_column(GROUP + name, texts, feature=Value("string"))


def group_of(dataset: Dataset) -> tuple[str, tuple[str, ...]] | None:
    """Return the name of the group column that a split carries, and the group of each example; None if it has none.

    Examples without a group are each a group of their own.
    """
    for name in dataset.column_names:
        if name.startswith(GROUP):
            groups = enumerate(dataset[name][:])
            named = tuple(f"no group {row}" if group is None else group for row, group in groups)
            return name.removeprefix(GROUP), named
    return None


def _plain(dataset: Dataset, name: str) -> list[Any]:
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
