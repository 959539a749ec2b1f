"""The command line: ``python -m benchmarks.auto measure|page [SETS...]``."""

import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from benchmarks.auto.measure import AUTOGLUON, CONTENDERS, LIMITS, Row, measured
from benchmarks.auto.page import render
from benchmarks.auto.sets import SETS
from benchmarks.inputs import ROOT
from benchmarks.kit.results import unpack
from benchmarks.options import measuring_parser, parse_options
from benchmarks.rows import measure_and_render, read_rows
from hf_finetune.cli.display import quiet_libraries

__all__ = ["main"]

RESULTS = ROOT / "benchmarks" / "results" / "auto.json"
PAGE = ROOT / "docs" / "auto.md"
REQUIREMENTS = "benchmarks/requirements-autogluon.txt"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure the given datasets, or all, and write their rows and the page.

    Returns:
        0, or 2 if a set is unknown, a lane would have no core or the peer's interpreter does not exist.
    """
    parser = measuring_parser("python -m benchmarks.auto", __doc__, SETS, "many hours for all", RESULTS, PAGE)
    parser.add_argument("--contender", action="append", choices=CONTENDERS, help="run only this; repeatable")
    parser.add_argument(
        "--limit", action="append", type=int, choices=LIMITS, help="run only this; repeatable"
    )
    peer = f"interpreter of an environment with {REQUIREMENTS}, which runs {AUTOGLUON}"
    parser.add_argument("--peer-python", type=Path, metavar="PYTHON", help=peer)
    options = parse_options(parser, arguments, SETS)
    if options is None:
        return 2
    contenders, python = options.contender or CONTENDERS, options.peer_python
    if python and not python.is_file():
        print(f"--peer-python must be the {peer}. Got {python}, which does not exist.", file=sys.stderr)
        return 2
    if options.what == "measure" and AUTOGLUON in contenders and not python:
        print(f"{AUTOGLUON} is left out: --peer-python must be the {peer}.", file=sys.stderr)
    rows = read_rows(Row, options.results)
    new = measured(
        options.names or list(SETS),
        contenders,
        options.limit or LIMITS,
        range(options.seeds),
        options.lanes,
        tuple(rows),
        python and python.absolute(),  # not resolved: an environment is known by its link
    )
    measure_and_render(options, rows, new, line=_line, render=render)
    return 0


def _line(row: Row) -> str:
    where = f"{row.name}, seed {row.seed}, {row.contender} {row.setting}".strip()
    accuracy = f"test accuracy {unpack(row.right, row.examples).mean():.3f}, " if row.examples else ""
    limit = f" of {row.limit}" if row.limit else ""
    return f"{where}: {accuracy}{row.seconds:.0f}{limit} s"


if __name__ == "__main__":
    quiet_libraries(Console(stderr=True))
    logging.disable(logging.WARNING)
    sys.exit(main())
