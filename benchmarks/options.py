"""Command line of measurements that are stored as rows and shown on a page."""

import argparse
import sys
from collections.abc import Collection, Sequence
from pathlib import Path

from benchmarks.lanes import lanes_problem

__all__ = ["measuring_parser", "parse_options"]


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


def parse_options(
    parser: argparse.ArgumentParser, arguments: Sequence[str] | None, known: Collection[str]
) -> argparse.Namespace | None:
    """Parse the arguments; unknown names, or lanes without a core, are reported, and None is returned.

    Args:
        parser: Result of ``measuring_parser``.
        arguments: Arguments of the command; None takes those of the process.
        known: Names that can be measured.
    """
    options = parser.parse_intermixed_args(arguments)
    problem = lanes_problem(options.lanes)
    if unknown := [name for name in options.names if name not in known]:
        problem = f"Unknown: {', '.join(unknown)}. Known: {', '.join(known)}."
    if problem:
        print(problem, file=sys.stderr)
        return None
    return options
