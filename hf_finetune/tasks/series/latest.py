"""The latest values of series, to forecast what follows them."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hf_finetune.errors import Problem, counted
from hf_finetune.tasks.series.grid import Grid, times_after
from hf_finetune.tasks.series.observations import read_observations

__all__ = ["latest_examples"]


def latest_examples(
    rows: Mapping[str, Sequence[Any]], columns: Mapping[str, Any], decimal: str | None
) -> Iterator[tuple[str, dict[str, Any] | Problem]]:
    """Yield the series of a table with one row per observation, to forecast what follows their last values.

    Gaps are treated as in training, and the step of the times must be the same.

    Args:
        rows: Columns of the table.
        columns: Column names by role; and as texts ``covariates``, a JSON list of columns, ``gaps``, the recipe's,
            ``step``, the number and the unit of a step, and ``horizon``, the number of values to forecast.
        decimal: Decimal mark of numbers that are text; None is a point.

    Yields:
        Name of each series, with its cells: the past, and the times to forecast if the horizon is known. Or its
        problem, if it cannot be used but others can.

    Raises:
        InputError: If the table or all of its series cannot be used.
    """
    covariates = json.loads(columns.get("covariates") or "[]")
    horizon = int(columns.get("horizon") or 0)
    table = read_observations(
        *(rows, columns),
        covariates=covariates,
        decimal=decimal,
        gaps=columns.get("gaps") or "error",
        grid=_grid(columns.get("step")),
        leave_out=True,
    )
    for name in sorted([*table.values, *table.faults]):
        if problem := table.faults.get(name):
            yield name, problem
            continue
        size = len(table.values[name])
        known = table.covariates[name].tolist() if covariates else []
        past = {"values": table.values[name].tolist(), "covariates": known}
        if covariates and len(known) < size + horizon:
            yield name, _too_few_covariates(covariates, horizon, len(known) - size)
            continue
        times = times_after(table.times[name][:size], table.grid, horizon)
        yield name, {"past_values": past, **({"time": times} if times else {})}


def _grid(step: str | None) -> Grid | None:
    size, _, unit = (step or "").partition(" ")
    return Grid(int(size), unit) if size.isdecimal() else None


def _too_few_covariates(covariates: Sequence[str], horizon: int, known: int) -> Problem:
    rule = f"must go on for {counted(horizon, 'step')} after the last value"
    fix = f"Append rows with the times and {', '.join(covariates)}, and an empty value."
    return Problem("The series", rule, counted(max(known, 0), "step"), fix)
