"""Tables with one row per observation: series, time and value, brought to a regular grid of times."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import gcd
from typing import Any

import numpy as np
import pandas as pd

from hf_finetune.errors import InputError, Problem, counted, join_quoted, suggestion
from hf_finetune.fields.times import SECONDS_PER_DAY
from hf_finetune.tasks.event_rows import check_columns, parse_column
from hf_finetune.tasks.series.grid import Grid, positions

__all__ = ["SeriesTable", "read_observations"]

_MAX_NAMED = 3
_ONLY_SERIES = "series"


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
        faults: Problem of each series that cannot be used, if such series are left out.
    """

    values: Mapping[str, np.ndarray]
    times: Mapping[str, Sequence[Any]]
    covariates: Mapping[str, np.ndarray]
    grid: Grid
    is_filled: Mapping[str, np.ndarray]
    faults: Mapping[str, Problem] = field(default_factory=dict)

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
    grid: Grid | None = None,
    leave_out: bool = False,
) -> SeriesTable:
    """Return the series of a table with one row per observation, in any order.

    Args:
        rows: Columns of the table.
        columns: Names of the columns ``time``, ``value`` and perhaps ``series``.
        covariates: Columns of numbers that are known in advance. A series may then end with rows without a value.
        decimal: Decimal mark of numbers that are text; None is a point.
        gaps: ``error`` or ``interpolate``.
        grid: Step of the times; None infers it.
        leave_out: Whether series that cannot be used are left out, as long as there are others.

    Raises:
        InputError: If a column is missing, a cell is no series, time or value, or a series cannot be used: a time
            occurs twice, or there are gaps that are not to be filled.
    """
    check_columns(rows, columns, ("time", "value"), ("series",))
    _check_covariates(rows, covariates)
    times = rows[columns["time"]]
    places, unit = positions(times)
    numbers = {"value": ("value", columns["value"])}
    numbers |= {f"covariate {index}": ("covariates", name) for index, name in enumerate(covariates)}
    frame = pd.DataFrame(
        {
            "series": _names(rows, columns.get("series")),
            "position": places,
            "row": np.arange(len(times)),
            **{
                name: parse_column(role, rows[column], lambda cell: _number(cell, decimal), _FORM)
                for name, (role, column) in numbers.items()
            },
        }
    )
    frame = frame.sort_values(["series", "position"], kind="stable")
    repeated = frame[frame.duplicated(["series", "position"])]
    faults = {name: _repeated_problem(part, times) for name, part in _by_series(repeated)}
    frame = frame[~frame["series"].isin(faults)]
    grid = _checked_grid(grid, frame, unit)
    parts = {name: _from_first_value(part) for name, part in _by_series(frame)}
    gaps_of = {
        name: f"{name!r} {fault}"
        for name, part in parts.items()
        if (fault := _gap(part, grid, times, list(numbers)))
        and (gaps == "error" or fault.startswith(_NOT_FILLED))
    }
    faults |= {name: _gap_problem([fault], grid) for name, fault in gaps_of.items()}
    if faults and (not leave_out or len(gaps_of) == len(parts)):
        problems = [_repeated_problem(repeated, times)] if len(repeated) else []
        raise InputError([*problems, *([_gap_problem([*gaps_of.values()], grid)] if gaps_of else [])])
    values, cells, known, filled = {}, {}, {}, {}
    for name, part in parts.items():
        if name in faults:
            continue
        on_grid = _on_grid(part, grid, list(numbers))
        size = _length(on_grid["value"])
        filled[name] = ~np.isfinite(on_grid["value"][:size])
        values[name] = _interpolated(on_grid["value"][:size])
        others = [on_grid[column] for column in list(numbers)[1:]]
        last = min((_length(each) for each in others), default=0)
        known[name] = np.zeros((size, 0))
        if others:
            known[name] = np.stack([_interpolated(each[:last]) for each in others], axis=1)
        cells[name] = [times[int(row)] if np.isfinite(row) else "" for row in on_grid["row"]]
    return SeriesTable(values, cells, known, grid, filled, faults)


_BETWEEN, _EMPTY, _SPARSE = (
    "has a time between two steps",
    "has no value",
    "has values at less than half of its steps",
)
_NOT_FILLED = (_BETWEEN, _EMPTY, _SPARSE)
"""Faults of a series that are errors whatever is done with gaps."""
_FORM = "a number, or nothing for a missing value"
_CLOCKS = "If this is the hour in which clocks are changed, write the times in UTC."


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


def _by_series(frame: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yield the rows of each series, in the order of their names."""
    return ((str(name), part) for name, part in frame.groupby("series", sort=True))


def _repeated_problem(repeated: pd.DataFrame, times: Sequence[Any]) -> Problem:
    """Return the problem of rows whose series has their time already."""
    shown = [f"{row.series} at {times[row.row]}" for row in repeated.head(_MAX_NAMED).itertuples()]
    rule = "must have one row for each series and time"
    fix = "Remove or add up the rows of one time, or set data.columns.series to the column that tells them apart."
    value = f"{counted(len(repeated), 'row')} of a time that has one already: {join_quoted(shown)}"
    has_clock = any(":" in str(times[row]) for row in repeated["row"].head(_MAX_NAMED))
    return Problem("data.columns.time", rule, value, f"{fix} {_CLOCKS}" if has_clock else fix)


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


def _checked_grid(known: Grid | None, frame: pd.DataFrame, unit: str) -> Grid:
    """Return the known step, or that of the times.

    Raises:
        InputError: If the times are of another unit than the known step.
    """
    if known is None:
        return Grid(_step(frame, unit), unit)
    if known.unit != unit:
        found = Grid(_step(frame, unit), unit).words
        raise InputError(
            Problem("data.columns.time", f"must have steps of {known.words}", f"steps of {found}")
        )
    return known


def _from_first_value(part: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of a series from its first value on; all of them if it has none."""
    present = np.flatnonzero(part["value"].notna())
    return part.iloc[present[0] :] if len(present) else part


def _gap(part: pd.DataFrame, grid: Grid, times: Sequence[Any], columns: Sequence[str]) -> str:
    """Return what is wrong with the times or numbers of a series; empty if nothing is."""
    if part["value"].isna().all():
        return _EMPTY
    distances = part["position"].diff().dropna()
    off_grid = distances[distances % grid.step != 0]
    if len(off_grid):
        return f"{_BETWEEN}: {times[part.loc[off_grid.index[0], 'row']]}"
    wide = distances[distances > grid.step]
    if distances.sum() // grid.step >= 2 * len(part):
        return f"{_SPARSE}, such as none before {times[part.loc[distances.idxmax(), 'row']]}"
    if len(wide):
        return f"lacks times before {times[part.loc[wide.index[0], 'row']]}"
    has_covariates = len(columns) > 1
    for column in columns:
        goes_on = column == "value" and has_covariates
        present = part[: _length(part["value"].to_numpy())] if goes_on else part
        missing = present[present[column].isna()]
        if len(missing):
            noun = "a value" if column == "value" else "a covariate"
            return f"lacks {noun} at {times[missing.iloc[0]['row']]}"
    return ""


def _length(values: np.ndarray) -> int:
    """Return the number of values without missing ones at the end."""
    present = np.flatnonzero(np.isfinite(values))
    return int(present[-1]) + 1 if len(present) else 0


def _gap_problem(faults: Sequence[str], grid: Grid) -> Problem:
    shown = "; ".join(faults[:_MAX_NAMED])
    if len(faults) > _MAX_NAMED:
        shown += f"; and {counted(len(faults) - _MAX_NAMED, 'more series', 'more series')}"
    fix = "Fill the gaps (0 for a day without sales is a value), or train with data.gaps: interpolate."
    if grid.unit == "seconds" and grid.step < SECONDS_PER_DAY:
        fix += f" {_CLOCKS}"
    if all(_BETWEEN in fault for fault in faults):
        fix = "Add up the values of each step first, such as those of a day."
    elif all(fault.endswith(_EMPTY) for fault in faults):
        fix = "Remove its rows."
    elif all(_SPARSE in fault for fault in faults):
        fix = "Correct its times, or remove its rows."
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
