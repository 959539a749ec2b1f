"""Examples of forecasting: the past of a series, and its next values as the label."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from hf_finetune.errors import InputError, Problem, counted, join_quoted, join_words
from hf_finetune.fields.times import parse_time
from hf_finetune.tasks.examples import ExampleError, JoinedRows
from hf_finetune.tasks.series.grid import is_step, moment_of
from hf_finetune.tasks.series.observations import SeriesTable, read_observations
from hf_finetune.tasks.series.stored import feature_of_pasts, read_past, read_values
from hf_finetune.tasks.series.table_columns import columns_of

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = [
    "context_length",
    "cut_windows",
    "mean_error_of_naive",
    "with_scales",
]

FUTURE = "future_values"
"""Column of the labels."""
_FEWEST = 3
"""Smallest number of past values of a training example without a season."""


@dataclass(frozen=True)
class _Example:
    """Example: a series, and the position of the first value to forecast (the origin)."""

    series: str
    origin: int
    past: np.ndarray
    future: np.ndarray
    covariates: np.ndarray
    scale: float


def context_length(data: Any, season: int) -> int:
    """Return the number of past values that a model reads.

    Args:
        data: ``data`` of the recipe.
        season: Length of a season (steps).
    """
    return data.context_length or max(2 * data.horizon, 2 * season)


def mean_error_of_naive(values: np.ndarray, season: int) -> float:
    """Return the mean absolute error of the seasonal naive forecast on the past of a series; 0 if it is too short.

    Args:
        values: Past values.
        season: Length of a season (steps).
    """
    distance = season if len(values) > season else 1
    return float(np.abs(values[distance:] - values[:-distance]).mean()) if len(values) > distance else 0.0


def cut_windows(splits: "Mapping[str, Dataset]", columns: Mapping[str, Any], data: Any) -> JoinedRows:
    """Cut the series of a table with one row per observation into examples, divided by time.

    The test examples of a series are its last ones, or those from ``data.split.time`` on. The validation examples lie
    before them, and the training examples before these: no value that is a label of a later split is in an earlier one.

    Args:
        splits: The table as loaded.
        columns: Column names by role.
        data: ``data`` of the recipe.

    Returns:
        The examples of each split.

    Raises:
        InputError: If the table or the fields cannot be used.
    """
    if set(splits) != {"train"}:
        rule = "must be one table if it has one row per observation: it is divided by time"
        raise InputError(Problem("data.path", rule, join_quoted(splits)))
    table = splits["train"]
    for role, fix in (("label", "The labels are the next values of each series."), ("weight", "")):
        if columns.get(role) is not None:
            rule = "must not be set for a table with one row per observation"
            raise InputError(Problem(f"data.columns.{role}", rule, repr(columns[role]), fix))
    sources = columns_of(table, columns)
    series = read_observations(
        table[:], sources, covariates=data.covariates, decimal=data.decimal, gaps=data.gaps
    )
    season = data.season or series.grid.season
    context = context_length(data, season)
    examples: dict[str, list[_Example]] = {"train": [], "validation": [], "test": []}
    short: list[str] = []
    for name, values in series.values.items():
        border = _border(series.times[name], data.split.time)
        one = _Series(name, values, series.covariates[name], series.is_filled[name])
        cut = list(_examples(one, border, data, season, context))
        if not any(split == "train" for split, _ in cut):
            short.append(f"{name} ({counted(len(values), 'value')})")
            continue
        for split, example in cut:
            examples[split].append(example)
    if short and (data.on_error != "skip" or not examples["train"]):
        raise InputError(_too_short(short, data, _shortest_past(context, season)))
    if not examples["test"]:
        raise InputError(_no_test(data))
    if data.split.validation > 0 and not examples["validation"]:
        rule = "must have a validation example without a filled value"
        fix = "Fill the gaps, or set data.split.validation: 0."
        raise InputError(Problem("The series", rule, "none", fix))
    tables = {split: _dataset(found, series, season) for split, found in examples.items() if found}
    columns = {"past_values": "past_values", "label": FUTURE}
    columns |= {"group": "series"} if len(series.values) > 1 else {}
    if data.covariates:
        sources["covariates"] = json.dumps(list(data.covariates))
    sources |= {
        "gaps": data.gaps,
        "step": f"{series.grid.step} {series.grid.unit}",
        "horizon": str(data.horizon),
    }
    return JoinedRows(
        *(tables, columns, sources),
        notes=tuple(_notes(series, examples, short, season, context)),
        is_divided=True,
        groups_recur=True,
    )


def _border(times: Sequence[Any], date: str | None) -> int | None:
    """Return the position of the first value from a date on; None without a date.

    Raises:
        InputError: If the times are no dates.
    """
    if date is None:
        return None
    if is_step(times[0]):
        rule, fix = "must not be set for times that are whole numbers", "Set data.test_origins instead."
        raise InputError(Problem("data.split.time", rule, f"{date}, with the time {times[0]}", fix))
    moment = parse_time(date)
    later = (place for place, cell in enumerate(times) if cell != "" and moment_of(cell) >= moment)
    return next(later, len(times))


@dataclass(frozen=True)
class _Series:
    """A series to cut: values, covariates of its steps, and which values were filled in."""

    name: str
    values: np.ndarray
    covariates: np.ndarray
    is_filled: np.ndarray

    def before(self, origin: int) -> np.ndarray:
        """Return the values before a position; those that were filled with the help of later ones repeat the last."""
        past = self.values[:origin].copy()
        known = np.flatnonzero(~self.is_filled[:origin])
        if len(known):
            past[known[-1] + 1 :] = past[known[-1]]
        return past

    def example(self, origin: int, begin: int, horizon: int, scale: float) -> _Example:
        """Return the example that begins to forecast at a position.

        Args:
            origin: Position of the first value to forecast.
            begin: Position of the first past value.
            horizon: Number of values to forecast.
            scale: Scale of the errors.
        """
        future, known = self.values[origin : origin + horizon], self.covariates[begin : origin + horizon]
        return _Example(self.name, origin, self.before(origin)[begin:], future, known, scale)


def _examples(
    series: _Series, border: int | None, data: Any, season: int, context: int
) -> Iterator[tuple[str, _Example]]:
    """Yield the examples of a series, each with its split; none if it is too short for a training example.

    An example with a label that was filled in is left out.
    """
    horizon, size = data.horizon, len(series.values)
    border = border if border is None else min(border, size)
    if border is None:
        border = size - horizon * data.test_origins
        tested = range(border, size, horizon)
    else:
        tested = range(border, size - horizon + 1, horizon)
    held_out = data.validation_origins if data.split.validation > 0 else 0
    end = border - horizon * held_out
    shortest = _shortest_past(context, season)
    if end - horizon < shortest:
        return
    scale = mean_error_of_naive(series.before(end), season)
    for origin in sorted(range(end - horizon, shortest - 1, -data.stride)):
        if not series.is_filled[origin : origin + horizon].any():
            yield "train", series.example(origin, max(0, origin - context), horizon, scale)
    for split, origins in (("validation", range(end, border, horizon)), ("test", tested)):
        for origin in origins:
            if not series.is_filled[origin : origin + horizon].any():
                yield (
                    split,
                    series.example(origin, 0, horizon, mean_error_of_naive(series.before(origin), season)),
                )


def _shortest_past(context: int, season: int) -> int:
    """Return the smallest number of past values of a training example: more than a season."""
    return min(context, max(season + 1, _FEWEST))


def _dataset(examples: Sequence[_Example], series: SeriesTable, season: int) -> "Dataset":
    from datasets import Dataset, Features, List, Value

    text = Value("string")
    types = {
        "past_values": feature_of_pasts(),
        FUTURE: List(Value("float64")),
        "series": text,
        "origin": text,
    }
    rows: dict[str, list[Any]] = {
        "past_values": [
            {
                "values": example.past.tolist(),
                "season": season,
                "covariates": example.covariates.tolist() if example.covariates.shape[1] else [],
            }
            for example in examples
        ],
        FUTURE: [np.append(example.future, example.scale) for example in examples],
        "series": [example.series for example in examples],
        "origin": [str(series.times[example.series][example.origin]) for example in examples],
    }
    return Dataset.from_dict(rows, features=Features(types))


def _too_short(short: Sequence[str], data: Any, shortest: int) -> Problem:
    held_out = data.validation_origins if data.split.validation > 0 else 0
    parts = [f"{held_out} to validate"] if held_out else []
    parts.append("some to test" if data.split.time else f"{data.test_origins} to test")
    rule = (
        f"must have at least {shortest} past values, {data.horizon} values to learn to forecast, and for each "
        f"example {data.horizon} more, {' and '.join(parts)}"
    )
    fix = (
        "Lower data.horizon, data.context_length or the number of origins, or leave out short series with "
        "data.on_error: skip."
    )
    return Problem("The series", rule, join_words(short, most=5), fix)


def _no_test(data: Any) -> Problem:
    rule = f"must leave {data.horizon} values after it in a series"
    return Problem(
        "data.split.time", rule, str(data.split.time), "Choose an earlier time, or a shorter horizon."
    )


def _notes(
    series: SeriesTable,
    examples: Mapping[str, Sequence[_Example]],
    short: Sequence[str],
    season: int,
    context: int,
) -> Iterator[str]:
    count = sum(map(len, series.values.values()))
    parts = join_words(f"{len(found):,} {split}" for split, found in examples.items() if found)
    yield (
        f"One row per observation: {count:,} values of {len(series.values):,} series with a step of "
        f"{series.grid.words}, cut into {parts} examples of {context} past values, with a season of {season} steps. A "
        "later split begins where the labels of the one before end."
    )
    if series.filled:
        yield (
            "Missing values were filled on a straight line between their neighbors, or with the last value at the end "
            f"of a past: {series.filled:,}. Examples with such a label are left out."
        )
    if short:
        yield f"Series that are too short were left out ({len(short):,}): {join_words(short, most=5)}."
    unscaled = len({each.series for found in examples.values() for each in found if each.scale == 0})
    if unscaled:
        yield (
            "Series that repeat exactly, season by season, have no scale of errors, and mase leaves them out: "
            f"{unscaled:,}."
        )


def with_scales(
    splits: "Mapping[str, Dataset]", columns: Mapping[str, Any], season: int | None
) -> JoinedRows | None:
    """Return a table whose rows are examples, with the scale of its past at the end of each label; None for any other.

    Args:
        splits: Tables with a column of past values and one of future values, lists of numbers or JSON texts.
        columns: Column names by role.
        season: Length of a season (steps); None is 1.
    """
    names = next(iter(splits.values())).column_names
    past = columns.get("past_values") or ("past_values" if "past_values" in names else None)
    label = columns.get("label") or next((name for name in (FUTURE, "label") if name in names), None)
    if not (isinstance(past, str) and isinstance(label, str) and past in names and label in names):
        return None
    scaled = {split: _scaled(dataset, past, label, season or 1) for split, dataset in splits.items()}
    kept = {role: columns[role] for role in ("group", "split", "weight") if columns.get(role) is not None}
    return JoinedRows(scaled, {"past_values": past, "label": label, **kept}, {}, columns.get("time"))


def _scaled(dataset: "Dataset", past: str, label: str, season: int) -> "Dataset":
    from datasets import Dataset, Features, List, Value, concatenate_datasets

    labels: list[list[float] | None] = []
    for history, cell in zip(dataset[past][:], dataset[label][:], strict=True):
        try:
            known = read_past(history)
            scale = mean_error_of_naive(np.array(known["values"]), known["season"] or season)
            labels.append([*read_values(cell), scale])
        except ExampleError:
            labels.append(None)  # reported as an unusable example, or as a missing label
    column = Dataset.from_dict({label: labels}, features=Features({label: List(Value("float64"))}))
    others = [name for name in dataset.column_names if name != label]
    return concatenate_datasets([dataset.select_columns(others), column], axis=1)
