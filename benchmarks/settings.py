"""Measurements of several settings of a recipe, each with several seeds: the command line, and the runs."""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from benchmarks.inputs import ROOT
from benchmarks.lanes import in_lanes
from benchmarks.options import measuring_parser, parse_options
from benchmarks.rows import measure_and_render, read_rows

__all__ = ["measure_settings", "runs_of_settings"]

Row = TypeVar("Row")


def measure_settings(
    name: str,
    about: str | None,
    arguments: Sequence[str] | None,
    *,
    row: type[Row],
    settings: Collection[str],
    measured: Callable[[Sequence[str], int, int, Iterable[Row]], Iterator[Row]],
    line: Callable[[Row], str],
    render: Callable[[Sequence[Row]], str],
    page: str,
    takes: str,
) -> int:
    """Measure the given settings, or all, and write their rows and the page.

    Args:
        name: Name of the benchmark, of its module and of its file of results.
        about: Description of the command.
        arguments: Arguments of the command; None takes those of the process.
        row: Class of a row.
        settings: Names that can be measured.
        measured: Function of names, number of seeds, lanes and known rows that yields new rows.
        line: Function that returns the line to print for a row.
        render: Function that returns the page.
        page: Name of the page in ``docs``.
        takes: Duration of measuring all of them, in words.

    Returns:
        0, or 2 if a setting is unknown or a lane would have no core.
    """
    results: Path = ROOT / "benchmarks" / "results" / f"{name}.json"
    parser = measuring_parser(
        f"python -m benchmarks.{name}", about, settings, takes, results, ROOT / "docs" / page
    )
    options = parse_options(parser, arguments, settings)
    if options is None:
        return 2
    rows = read_rows(row, options.results)
    new = measured(options.names or list(settings), options.seeds, options.lanes, tuple(rows))
    measure_and_render(options, rows, new, line=line, render=render)
    return 0


def runs_of_settings(
    alone: Callable[[str, int, list[int]], Row],
    names: Sequence[str],
    seeds: int,
    lanes: int,
    known: Iterable[Any],
) -> Iterator[Row]:
    """Run settings with every seed, except known rows.

    Args:
        alone: Function of a setting, a seed and the cores of the run that returns its row.
        names: Names of the settings.
        seeds: Number of seeds: 0, 1, ...
        lanes: Number of parallel runs, each on its own cores.
        known: Rows of earlier runs, with ``setting`` and ``seed``.

    Raises:
        ContenderError: If a run fails; runs that have not started are not done.
    """
    there = {(row.setting, row.seed) for row in known}
    runs = [
        partial(alone, name, seed) for seed in range(seeds) for name in names if (name, seed) not in there
    ]
    yield from in_lanes(runs, lanes)
