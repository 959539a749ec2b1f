"""The command line: ``python -m benchmarks.small measure|page [SETS...]``."""

import logging
import sys
from collections.abc import Sequence

from rich.console import Console

from benchmarks.inputs import ROOT
from benchmarks.options import measuring_parser, parse_options
from benchmarks.rows import measure_and_render, read_rows
from benchmarks.small.measure import Row, measured
from benchmarks.small.page import render
from benchmarks.small.sets import SETS
from hf_finetune.cli.display import quiet_libraries

__all__ = ["main"]

RESULTS = ROOT / "benchmarks" / "results" / "small.json"
PAGE = ROOT / "docs" / "small-sets.md"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure the given datasets, or all, and write their rows and the page.

    Returns:
        0, or 2 if a set is unknown or a lane would have no core.
    """
    parser = measuring_parser(
        "python -m benchmarks.small", __doc__, SETS, "an hour or more for all", RESULTS, PAGE
    )
    parser.add_argument("--setting", action="append", default=[], help="run only this setting; repeatable")
    options = parse_options(parser, arguments, SETS)
    if options is None:
        return 2
    rows = read_rows(Row, options.results)
    names = options.names or list(SETS)
    new = measured(names, options.seeds, options.lanes, tuple(rows), options.setting)
    measure_and_render(options, rows, new, line=_line, render=render)
    return 0


def _line(row: Row) -> str:
    accuracies = f"validation accuracy {row.start:.3f}, then {row.trained:.3f}"
    return f"{row.name}, {row.setting}, seed {row.seed}: {accuracies}, {row.seconds:.1f} s"


if __name__ == "__main__":
    quiet_libraries(Console(stderr=True))
    logging.disable(logging.WARNING)
    sys.exit(main())
