"""The command line: ``python -m benchmarks.events measure|page [SETTINGS...]``."""

import logging
import sys
from collections.abc import Sequence

from rich.console import Console

from benchmarks.events.measure import SETTINGS, Row, measured
from benchmarks.events.page import render
from benchmarks.inputs import ROOT
from benchmarks.options import measuring_parser, parse_options
from benchmarks.rows import measure_and_render, read_rows
from hf_finetune.cli.display import quiet_libraries

__all__ = ["main"]

RESULTS = ROOT / "benchmarks" / "results" / "events.json"
PAGE = ROOT / "docs" / "cdnow.md"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure the given settings, or all, and write their rows and the page.

    Returns:
        0, or 2 if a setting is unknown or a lane would have no core.
    """
    parser = measuring_parser(
        "python -m benchmarks.events", __doc__, SETTINGS, "half an hour for all", RESULTS, PAGE
    )
    options = parse_options(parser, arguments, SETTINGS)
    if options is None:
        return 2
    rows = read_rows(Row, options.results)
    new = measured(options.names or list(SETTINGS), options.seeds, options.lanes, tuple(rows))
    measure_and_render(options, rows, new, line=_line, render=render)
    return 0


def _line(row: Row) -> str:
    return f"{row.setting}, seed {row.seed}: ROC AUC {row.test['roc_auc']:.4f}"


if __name__ == "__main__":
    quiet_libraries(Console(stderr=True))
    logging.disable(logging.WARNING)
    sys.exit(main())
