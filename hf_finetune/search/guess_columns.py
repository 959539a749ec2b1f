"""Guesses of input and label columns where their names do not tell which they are."""

from collections.abc import Mapping

from datasets import Dataset, Features

from hf_finetune.data.columns import LABEL_NAMES, find_columns
from hf_finetune.errors import InputError
from hf_finetune.tasks import Modality

__all__ = ["guess_columns"]

_ROWS_READ = 5000
_MAX_CLASSES = 200
_MIN_EXAMPLES_PER_CLASS = 2.0
"""Smallest mean number of examples for each value of a column that is taken for the classes."""
_FEWEST_BINARY = 3
"""Smallest number of columns of 0 and 1 that are taken for the labels of a multi-label dataset."""


def guess_columns(
    dataset: Dataset, modality: Modality, named: Mapping[str, str]
) -> dict[str, str | list[str]]:
    """Return guesses for the main input column and the label column, where names alone do not decide.

    The input is the column with the most text in total that is no numbers, or with the most names of files of the
    modality. The label is the column with a usual name that comes first in the list of such names; else all columns
    with few values if there are at least three and each has only 0 and 1, as multi-hot labels have; else the last
    column with few values; else the last column with numbers.

    Args:
        dataset: Rows of the training split.
        modality: Kind of input.
        named: Columns that the user named, by role.

    Returns:
        Guessed column by role, or for the label a list of columns of 0 and 1; empty if the names decide, or if nothing
        can be guessed.
    """
    if _are_found(dataset.features, modality, named):
        return {}
    rows = dataset.select(range(min(len(dataset), _ROWS_READ)))
    guesses: dict[str, str | list[str]] = {}
    main, taken = modality.main_column, {*named.values()}
    if main not in named and (column := _guess_input(rows, modality, taken)):
        guesses[main] = column
        taken.add(column)
    if "label" not in named and (label := _guess_label(rows, taken)):
        guesses["label"] = label
    return {
        role: column
        for role, column in guesses.items()
        if not _are_found(dataset.features, modality, {**named, **guesses, role: None})
    }


def _are_found(features: Features, modality: Modality, named: Mapping[str, str | list[str] | None]) -> bool:
    """Return whether all columns that are not named are found by their names."""
    try:
        find_columns(features, modality, named)
    except InputError:
        return False
    return True


def _guess_input(rows: Dataset, modality: Modality, taken: set[str]) -> str | None:
    scores = {}
    for name, feature in rows.features.items():
        if name in taken or not modality.roles[0].accepts(feature) or hasattr(feature, "decode_example"):
            continue
        if not modality.may_hold_examples(rows[name][:]):
            continue
        texts = [value for value in rows[name] if isinstance(value, str)]
        if modality.opens_files:
            scores[name] = sum(text.lower().endswith(tuple(modality.suffixes)) for text in texts)
        elif not all(map(_is_number, texts)):
            scores[name] = sum(map(len, texts))
    best = max(scores, key=scores.__getitem__, default=None)
    return best if best is not None and scores[best] else None


def _guess_label(rows: Dataset, taken: set[str]) -> str | list[str] | None:
    names = [
        name
        for name, feature in rows.features.items()
        if name not in taken and not hasattr(feature, "decode_example")  # images and recordings are no labels
    ]
    usual = {name.lower(): name for name in reversed(names)}
    known = [usual[name] for name in LABEL_NAMES if name in usual]
    few = [name for name in names if _has_few_values(rows[name])]
    numbers = [name for name in names if all(map(_is_number, rows[name]))]
    if not known and len(few) >= _FEWEST_BINARY and all(_is_binary(rows[name]) for name in few):
        return few
    return next((group[index] for group, index in ((known, 0), (few, -1), (numbers, -1)) if group), None)


def _has_few_values(values: list[object]) -> bool:
    """Return whether a column repeats a small number of values, as classes do."""
    plain = [value for value in values if isinstance(value, str | int | bool)]
    distinct = len(set(plain))
    return 2 <= distinct <= _MAX_CLASSES and len(plain) >= _MIN_EXAMPLES_PER_CLASS * distinct


def _is_binary(values: list[object]) -> bool:
    """Return whether a column has only 0 and 1, as numbers or text."""
    return all(_is_number(value) and float(value) in (0.0, 1.0) for value in values)  # type: ignore[arg-type]


def _is_number(value: object) -> bool:
    """Return whether a cell is a number, or a text that stands for one, as in files without column types."""
    try:
        float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return False
    return True
