"""Division of examples by time: earlier ones train a model, later ones test it."""

from collections.abc import Mapping
from dataclasses import replace

from datasets import Dataset

from hf_finetune.data.load import Source
from hf_finetune.data.split_names import SPLITS
from hf_finetune.errors import InputError, Problem, join_quoted, short_repr, suggestion
from hf_finetune.fields.times import TIME_FORM, parse_time

__all__ = ["TIME_NAMES", "divide_by_time"]

TIME_NAMES = ("time", "date", "datetime", "timestamp")
"""Usual names of a column of times, in lower case."""
_PLACE = "data.split.time"


def divide_by_time(source: Source, column: str | None, moment: str) -> Source:
    """Divide examples at a point in time: from then on they are the test split, before they are the train split.

    Args:
        source: Loaded data with a train split only: validation examples must be earlier ones, too.
        column: Column of the times; None takes the only column with a usual name.
        moment: Point in time, as ``parse_time`` reads it.

    Returns:
        The data with a train and a test split, and a note.

    Raises:
        InputError: If there is a validation or test split already, no such column, a value is no time, or one side
            would be empty.
    """
    if existing := [name for name in SPLITS[1:] if name in source.splits]:
        present = [name for name in SPLITS if name in source.splits]
        rule = f"must not be set for data with a {existing[-1]} split"
        raise InputError(Problem(_PLACE, rule, moment, f"Its splits: {join_quoted(present)}."))
    train = source.splits["train"]
    name = _time_column(train, column)
    border, times = parse_time(moment), _times(train, name)
    later = [row for row, time in enumerate(times) if time >= border]
    earlier = [row for row, time in enumerate(times) if time < border]
    if not later or not earlier:
        side = "before" if earlier else "on or after"
        rule = f"must divide the examples; all are {side} it"
        low, high = min(zip(times, train[name], strict=True))[1], max(zip(times, train[name], strict=True))[1]
        raise InputError(Problem(_PLACE, rule, moment, f"The times are from {low} to {high}."))
    note = (
        f"Divided by {name!r} at {moment}: {len(earlier):,} earlier examples, and {len(later):,} later ones, the test "
        "split."
    )
    splits: Mapping[str, Dataset] = {
        **source.splits,
        "train": train.select(earlier),
        "test": train.select(later),
    }
    untyped = source.untyped_splits | ({"test"} if "train" in source.untyped_splits else set())
    files = dict(source.files)
    if "train" in files:
        names = files["train"]
        files |= {"train": tuple(names[row] for row in earlier), "test": tuple(names[row] for row in later)}
    return replace(source, splits=splits, notes=(*source.notes, note), untyped_splits=untyped, files=files)


def _time_column(dataset: Dataset, column: str | None) -> str:
    names = dataset.column_names
    place, rule = "data.columns.time", "must be a column of the data"
    if column is not None:
        if column not in names:
            raise InputError(Problem(place, rule, repr(column), suggestion(column, names)))
        return column
    usual = [name for name in names if name.lower() in TIME_NAMES]
    if len(usual) != 1:
        found = f"columns {join_quoted(usual or names)}"
        raise InputError(Problem(place, "must be set with data.split.time", found))
    return usual[0]


def _times(dataset: Dataset, name: str) -> list[float]:
    times = []
    for row, value in enumerate(dataset[name][:]):
        try:
            times.append(parse_time(value))
        except ValueError:
            found = f"{short_repr(value)} in row {row}"
            raise InputError(
                Problem("data.columns.time", f"must contain in each row {TIME_FORM}", found)
            ) from None
    return times
