"""Tables with one row per observation: series, time and value, brought to a regular grid of times."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import gcd
from typing import Any

import numpy as np
import pandas as pd

from hf_finetune.errors import InputError, Problem, counted, join_quoted, short_repr, suggestion
from hf_finetune.fields.times import SECONDS_PER_DAY, TIME_FORM, parse_time
from hf_finetune.tasks.event_rows import check_columns, parse_column

__all__ = ["Grid", "SeriesTable", "is_step", "read_observations"]

_DAY, _HOUR = SECONDS_PER_DAY, 3600
_SEASONS = {_HOUR // 2: 48, _HOUR: 24, _DAY: 7, 7 * _DAY: 52}
"""Length of a season by the step between times (seconds)."""
_MONTHS_PER_YEAR = 12
_SHORTEST_MONTH = 28
"""Days of a month: dates from the 28th on, such as the 30th of each month, stand for months."""
_MAX_NAMED = 3
_ONLY_SERIES = "series"


@dataclass(frozen=True)
class Grid:
    """Regular times.

    Attributes:
        step: Distance between neighboring times, in the unit of the positions.
        unit: ``months``, ``seconds`` or ``steps``.
    """

    step: int
    unit: str

    @property
    def season(self) -> int:
        """Usual length of a season (steps)."""
        if self.unit == "months":
            return max(1, _MONTHS_PER_YEAR // self.step) if _MONTHS_PER_YEAR % self.step == 0 else 1
        return _SEASONS.get(self.step, 1) if self.unit == "seconds" else 1

    @property
    def words(self) -> str:
        """Description of the step, such as ``1 month``."""
        if self.unit != "seconds":
            return counted(self.step, self.unit.removesuffix("s"))
        for size, name in ((_DAY, "day"), (_HOUR, "hour"), (60, "minute")):
            if self.step % size == 0:
                return counted(self.step // size, name)
        return counted(self.step, "second")


@dataclass(frozen=True)
class SeriesTable:
    """Series at regular times.

    Attributes:
        values: Values of each series, the oldest first.
        times: Cells with the times of these values; empty text for a filled one.
        grid: Regular times of all series.
        covariates: Numbers that are known in advance for each series [steps, covariates], also for steps after its
            last value; without columns if there are none.
        is_filled: Which of the values were filled in.
    """

    values: Mapping[str, np.ndarray]
    times: Mapping[str, Sequence[Any]]
    covariates: Mapping[str, np.ndarray]
    grid: Grid
    is_filled: Mapping[str, np.ndarray]

    @property
    def filled(self) -> int:
        """Number of values that were filled in."""
        return sum(int(filled.sum()) for filled in self.is_filled.values())


def read_observations(
    rows: Mapping[str, Sequence[Any]],
    columns: Mapping[str, Any],
    *,
    covariates: Sequence[str] = (),
    decimal: str | None,
    gaps: str,
) -> SeriesTable:
    """Return the series of a table with one row per observation, in any order.

    Args:
        rows: Columns of the table.
        columns: Names of the columns ``time``, ``value`` and perhaps ``series``.
        covariates: Columns of numbers that are known in advance. A series may then end with rows without a value.
        decimal: Decimal mark of numbers that are text; None is a point.
        gaps: ``error`` or ``interpolate``.

    Raises:
        InputError: If a column is missing, a cell is no series, time or value, a time occurs twice in a series, or the
            times have gaps that are not to be filled.
    """
    check_columns(rows, columns, ("time", "value"), ("series",))
    _check_covariates(rows, covariates)
    times = rows[columns["time"]]
    positions, unit = _positions(times)
    numbers = {"value": ("value", columns["value"])}
    numbers |= {f"covariate {index}": ("covariates", name) for index, name in enumerate(covariates)}
    frame = pd.DataFrame(
        {
            "series": _names(rows, columns.get("series")),
            "position": positions,
            "row": np.arange(len(times)),
            **{
                name: parse_column(role, rows[column], lambda cell: _number(cell, decimal), _FORM)
                for name, (role, column) in numbers.items()
            },
        }
    )
    frame = frame.sort_values(["series", "position"], kind="stable")
    _check_repeated(frame, times)
    grid = Grid(_step(frame, unit), unit)
    parts = {str(name): part for name, part in frame.groupby("series", sort=True)}
    faults = []
    for name, part in parts.items():
        fault = _gap(part, grid, times, list(numbers))
        if fault and (gaps == "error" or _BETWEEN in fault):
            faults.append(f"{name!r} {fault}")
    if faults:
        raise InputError(_gap_problem(faults, grid))
    values, cells, known, filled = {}, {}, {}, {}
    for name, part in parts.items():
        on_grid = _on_grid(part, grid, list(numbers))
        size = _length(on_grid["value"], bool(covariates))
        filled[name] = ~np.isfinite(on_grid["value"][:size])
        values[name] = _interpolated(on_grid["value"][:size])
        others = [_interpolated(on_grid[column]) for column in list(numbers)[1:]]
        known[name] = np.stack(others, axis=1) if others else np.zeros((len(on_grid["value"]), 0))
        cells[name] = [times[int(row)] if np.isfinite(row) else "" for row in on_grid["row"]]
    return SeriesTable(values, cells, known, grid, filled)


_BETWEEN = "has a time between two steps"
_FORM = "a number, or nothing for a missing value"


def _number(cell: Any, decimal: str | None) -> float:
    """Return a value as a number; nan for a missing one."""
    if cell is None or (isinstance(cell, str) and not cell.strip()):
        return np.nan
    if isinstance(cell, bool):
        raise TypeError(repr(cell))
    number = float(cell.strip().replace(decimal or ".", ".") if isinstance(cell, str) else cell)
    if np.isinf(number):
        raise ValueError(repr(cell))
    return number


def _check_covariates(rows: Mapping[str, Sequence[Any]], covariates: Sequence[str]) -> None:
    problems = [
        Problem("data.covariates", "must be columns of the data", repr(name), suggestion(name, list(rows)))
        for name in covariates
        if name not in rows
    ]
    if problems:
        raise InputError(problems)


def _names(rows: Mapping[str, Sequence[Any]], column: str | None) -> Sequence[str]:
    if column is None:
        return [_ONLY_SERIES] * len(next(iter(rows.values())))
    names = ["" if cell is None else str(cell).strip() for cell in rows[column]]
    if "" in names:
        value = f"none in row {names.index('')}"
        raise InputError(Problem("data.columns.series", "must name a series in each row", value))
    return names


def _positions(cells: Sequence[Any]) -> tuple[np.ndarray, str]:
    """Return the position of each time: number of a step, of a month, or of a second; and the unit.

    Times that are whole numbers of fewer than eight digits, such as years or the numbers of periods, are steps. Dates
    that are all on the same day of a month, or all at its end, are months.
    """
    if all(is_step(cell) for cell in cells):
        return np.array([int(cell) for cell in cells], dtype=np.int64), "steps"
    seconds = parse_column("time", cells, parse_time, TIME_FORM)
    moments = pd.DatetimeIndex(np.round(seconds * 1e6).astype("int64").astype("datetime64[us]"))
    within = moments - moments.normalize()
    months = np.asarray(moments.year * _MONTHS_PER_YEAR + moments.month, dtype=np.int64)
    days = set(moments.day)
    same_day = len(days) == 1 or bool(np.asarray(moments.is_month_end).all()) or min(days) >= _SHORTEST_MONTH
    if same_day and len(set(within)) == 1 and len(set(months)) > 1:
        return months, "months"
    if (seconds % 1 != 0).any():
        row = int(np.flatnonzero(seconds % 1)[0])
        rule = "must contain times in whole seconds"
        raise InputError(Problem("data.columns.time", rule, f"{short_repr(cells[row])} in row {row}"))
    return seconds.astype(np.int64), "seconds"


def is_step(cell: Any) -> bool:
    """Return whether a time is the number of a step, such as a year, and no date.

    Args:
        cell: Cell of the column of times.
    """
    text = str(cell).strip() if isinstance(cell, str | int) and not isinstance(cell, bool) else ""
    return text.removeprefix("-").isdecimal() and len(text) < len("20240531")


def _check_repeated(frame: pd.DataFrame, times: Sequence[Any]) -> None:
    repeated = frame.duplicated(["series", "position"])
    if not repeated.any():
        return
    shown = [f"{row.series} at {times[row.row]}" for row in frame[repeated].head(_MAX_NAMED).itertuples()]
    rule = "must have one row for each series and time"
    fix = "Remove or add up the rows of one time, or set data.columns.series to the column that tells them apart."
    value = f"{counted(int(repeated.sum()), 'row')} of a time that has one already: {join_quoted(shown)}"
    raise InputError(Problem("data.columns.time", rule, value, fix))


def _step(frame: pd.DataFrame, unit: str) -> int:
    """Return the distance between neighboring times of a series: the most common one, the smaller of two as common.

    That of months is the largest one of which all are multiples, so that a gap in a few quarters makes no months.
    """
    distances = frame.groupby("series")["position"].diff().dropna().astype(np.int64)
    if distances.empty:
        return 1
    if unit == "months":
        return gcd(*distances)
    counts = distances.value_counts()
    return int(counts[counts == counts.max()].index.min())


def _gap(part: pd.DataFrame, grid: Grid, times: Sequence[Any], columns: Sequence[str]) -> str:
    """Return what is wrong with the times or numbers of a series; empty if nothing is."""
    distances = part["position"].diff().dropna()
    off_grid = distances[distances % grid.step != 0]
    if len(off_grid):
        return f"{_BETWEEN}: {times[part.loc[off_grid.index[0], 'row']]}"
    wide = distances[distances > grid.step]
    if len(wide):
        return f"lacks times before {times[part.loc[wide.index[0], 'row']]}"
    for column in columns:
        present = part[: _length(part["value"].to_numpy(), len(columns) > 1)] if column == "value" else part
        missing = present[present[column].isna()]
        if len(missing):
            noun = "a value" if column == "value" else "a covariate"
            return f"lacks {noun} at {times[missing.iloc[0]['row']]}"
    return ""


def _length(values: np.ndarray, may_end_without: bool) -> int:
    """Return the number of values of a series, without missing ones at its end if these are allowed."""
    present = np.flatnonzero(np.isfinite(values))
    return int(present[-1]) + 1 if may_end_without and len(present) else len(values)


def _gap_problem(faults: Sequence[str], grid: Grid) -> Problem:
    shown = "; ".join(faults[:_MAX_NAMED])
    if len(faults) > _MAX_NAMED:
        shown += f"; and {counted(len(faults) - _MAX_NAMED, 'more series', 'more series')}"
    fix = "Fill the gaps (0 for a day without sales is a value), or set data.gaps: interpolate."
    if all(_BETWEEN in fault for fault in faults):
        fix = "Add up the values of each step first, such as those of a day."
    return Problem("The series", f"must have a value at each step of {grid.words}", shown, fix)


def _on_grid(part: pd.DataFrame, grid: Grid, columns: Sequence[str]) -> dict[str, np.ndarray]:
    """Return the numbers of the columns, and of the rows, at all steps; nan where there is none."""
    places = ((part["position"] - part["position"].iloc[0]) // grid.step).to_numpy()
    on_grid = {}
    for column in (*columns, "row"):
        on_grid[column] = np.full(places[-1] + 1, np.nan)
        on_grid[column][places] = part[column]
    return on_grid


def _interpolated(values: np.ndarray) -> np.ndarray:
    """Return values with missing ones on a straight line between their neighbors."""
    known = np.flatnonzero(np.isfinite(values))
    if len(known) in (0, len(values)):
        return values
    return np.interp(np.arange(len(values)), known, values[known])
