"""Command line of measurements that are stored as rows and shown on a page."""

import argparse
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import TypeVar

from benchmarks.lanes import lanes_problem

__all__ = ["measure_and_render", "measuring_parser", "options_problem"]

Row = TypeVar("Row")


def measuring_parser(
    prog: str, about: str | None, known: Collection[str], takes: str, results: Path, page: Path
) -> argparse.ArgumentParser:
    """Return the parser of ``measure|page [NAMES...]``.

    Args:
        prog: Name of the command.
        about: Description of the command.
        known: Names that can be measured.
        takes: Duration of measuring all of them, in words.
        results: File of all rows.
        page: Page that is written from the rows.
    """
    parser = argparse.ArgumentParser(prog=prog, description=about)
    what = f"run all that has no rows yet ({takes}, on an idle machine), or only write the page"
    parser.add_argument("what", choices=["measure", "page"], help=what)
    parser.add_argument("names", nargs="*", help=f"default: all of {', '.join(known)}")
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds")
    lanes = "number of parallel runs, each on its own cores"
    parser.add_argument("--lanes", type=int, default=1, help=lanes)
    parser.add_argument("--results", type=Path, default=results, help="file of all rows")
    parser.add_argument("--page", type=Path, default=page, help="page to write")
    return parser


def options_problem(options: argparse.Namespace, known: Collection[str]) -> str:
    """Return an error message on unknown names or lanes without a core, else an empty text."""
    if unknown := [name for name in options.names if name not in known]:
        return f"Unknown: {', '.join(unknown)}. Known: {', '.join(known)}."
    return lanes_problem(options.lanes)


def measure_and_render(
    options: argparse.Namespace,
    rows: list[Row],
    measured: Iterable[Row],
    *,
    write: Callable[[list[Row], Path], None],
    line: Callable[[Row], str],
    render: Callable[[list[Row]], str],
) -> None:
    """Store and print each row as soon as it is measured, and write the page.

    Args:
        options: Parsed arguments of ``measuring_parser``.
        rows: Rows of earlier runs, to which the new ones are added.
        measured: New rows, which are measured when they are read.
        write: Function that writes all rows.
        line: Function that returns the line to print for a row.
        render: Function that returns the page.
    """
    if options.what == "measure":
        for row in measured:
            rows.append(row)
            write(rows, options.results)
            print(line(row), flush=True)
    options.page.write_text(render(rows), encoding="utf-8")
