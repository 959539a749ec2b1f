"""Regular times of series: steps, months, or seconds."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import pandas as pd

from hf_finetune.errors import InputError, Problem, counted, short_repr
from hf_finetune.fields.times import SECONDS_PER_DAY, TIME_FORM, parse_time
from hf_finetune.tasks.event_rows import parse_column

__all__ = ["Grid", "is_step", "moment_of", "positions", "times_after"]

_DAY, _HOUR = SECONDS_PER_DAY, 3600
_SEASONS = {_HOUR // 2: 48, _HOUR: 24, _DAY: 7, 7 * _DAY: 52}
"""Length of a season by the step between times (seconds)."""
_MONTHS_PER_YEAR = 12
_SHORTEST_MONTH, _LONGEST_MONTH = 28, 31
"""Days of a month: dates from the 28th on, such as the 30th of each month, stand for months."""
_MONTH = re.compile(r"((?:19|20)\d\d)-?(0[1-9]|1[0-2])")
"""A month without a day: 2024-05 or 202405."""


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


def moment_of(cell: Any) -> float:
    """Return a time in seconds since 1970; a month without a day is its first one.

    Args:
        cell: Cell of the column of times.

    Raises:
        ValueError: If it is no time.
    """
    if (month := _MONTH.fullmatch(str(cell).strip())) is not None:
        return parse_time(f"{month[1]}-{month[2]}-01")
    return parse_time(cell)


def is_step(cell: Any) -> bool:
    """Return whether a time is the number of a step, such as a year, and no date.

    Args:
        cell: Cell of the column of times.
    """
    text = str(cell).strip() if isinstance(cell, str | int) and not isinstance(cell, bool) else ""
    return text.removeprefix("-").isdecimal() and len(text) < len("20240531")


def positions(cells: Sequence[Any]) -> tuple[np.ndarray, str]:
    """Return the position of each time: number of a step, of a month, or of a second; and the unit.

    Times that are whole numbers of fewer than eight digits, such as years or the numbers of periods, are steps, unless
    all are months such as 202405. Dates that are all on the same day of a month, or all at its end, are months.

    Args:
        cells: Cells of the column of times.

    Raises:
        InputError: If a cell is no time.
    """
    are_months = all(_MONTH.fullmatch(str(cell).strip()) for cell in cells)
    if all(is_step(cell) for cell in cells) and not are_months:
        return np.array([int(cell) for cell in cells], dtype=np.int64), "steps"
    form = f"{TIME_FORM}, or a month such as 2024-05"
    seconds = parse_column("time", cells, moment_of, form)
    moments = _moments(seconds)
    local = [_local_seconds(cell) for cell in cells]
    if None not in local:  # midnights of a place whose clocks change are days apart, though not in seconds
        by_clock = _moments(np.array(local, dtype=np.float64))
        if len(set(by_clock - by_clock.normalize())) == 1:
            seconds, moments = np.array(local, dtype=np.float64), by_clock
    months = np.asarray(moments.year * _MONTHS_PER_YEAR + moments.month, dtype=np.int64)
    days = set(moments.day)
    is_once_a_month = len(set(moments)) == len(set(months))
    same_day = (
        len(days) == 1
        or bool(np.asarray(moments.is_month_end).all())
        or (min(days) >= _SHORTEST_MONTH and is_once_a_month)
    )
    if same_day and len(set(moments - moments.normalize())) == 1 and len(set(months)) > 1:
        return months, "months"
    if (seconds % 1 != 0).any():
        row = int(np.flatnonzero(seconds % 1)[0])
        rule = "must contain times in whole seconds"
        raise InputError(Problem("data.columns.time", rule, f"{short_repr(cells[row])} in row {row}"))
    return seconds.astype(np.int64), "seconds"


def times_after(cells: Sequence[Any], grid: Grid, count: int) -> list[str]:
    """Return the times that follow those of a series, written as these are.

    Args:
        cells: Cells with the times of a series, the oldest first; empty texts where one is unknown, but not the last.
        grid: Regular times of the series.
        count: Number of times.
    """
    last, ahead = cells[-1], [grid.step * number for number in range(1, count + 1)]
    if grid.unit == "steps":
        return [str(int(last) + steps) for steps in ahead]
    if month := _MONTH.fullmatch(str(last).strip()):
        months = [int(month[1]) * _MONTHS_PER_YEAR + int(month[2]) - 1 + steps for steps in ahead]
        dash = "-" if "-" in str(last) else ""
        return [f"{place // _MONTHS_PER_YEAR}{dash}{place % _MONTHS_PER_YEAR + 1:02d}" for place in months]
    moment = pd.Timestamp(last)
    if grid.unit == "seconds":
        return [_written(moment + pd.Timedelta(seconds=steps), last) for steps in ahead]
    days = [pd.Timestamp(cell) for cell in cells if cell != ""]
    at_end = all(day.is_month_end for day in days)
    latest = _LONGEST_MONTH if at_end else max(day.day for day in days)
    following = [moment + pd.DateOffset(months=steps) for steps in ahead]
    return [_written(day.replace(day=min(latest, day.days_in_month)), last) for day in following]


def _written(moment: pd.Timestamp, like: Any) -> str:
    """Return a time as text: in the form of another one, if that is a text, else in ISO 8601."""
    text = like.strip() if isinstance(like, str) else str(like)
    if len(text) == len("20240531"):
        return moment.strftime("%Y%m%d")
    if len(text) <= len("2024-05-31"):
        return moment.date().isoformat()
    return moment.isoformat(sep="T" if "T" in text else " ")


def _moments(seconds: np.ndarray) -> pd.DatetimeIndex:
    return pd.DatetimeIndex(np.round(seconds * 1e6).astype("int64").astype("datetime64[us]"))


def _local_seconds(cell: Any) -> float | None:
    """Return a time as a clock shows it, in seconds since 1970; None for a time that states no zone."""
    moment = cell if isinstance(cell, datetime) else None
    if isinstance(cell, str) and len(cell.strip()) > len("2024-05-31"):
        moment = datetime.fromisoformat(cell.strip())
    if moment is None or moment.tzinfo is None:
        return None
    return parse_time(moment.replace(tzinfo=None))
