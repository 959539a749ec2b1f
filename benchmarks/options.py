"""The command line of measurements that are kept in rows and shown on a page."""

import argparse
from collections.abc import Collection
from pathlib import Path

from benchmarks.lanes import lanes_problem

__all__ = ["measuring_parser", "options_problem"]


def measuring_parser(
    prog: str, about: str | None, known: Collection[str], takes: str, results: Path, page: Path
) -> argparse.ArgumentParser:
    """Make the parser of ``measure|page [NAMES...]``.

    Args:
        prog: How the command is called.
        about: What it is.
        known: Names of what is measured.
        takes: Words for the time that all of it takes.
        results: The file of all rows.
        page: The page that is written from them.
    """
    parser = argparse.ArgumentParser(prog=prog, description=about)
    told = f"run what there are no rows of yet ({takes}; run nothing else meanwhile); write the page only"
    parser.add_argument("what", choices=["measure", "page"], help=told)
    parser.add_argument("names", nargs="*", help=f"all unless given: {', '.join(known)}")
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds")
    lanes = "number of runs at a time, each on its own cores"
    parser.add_argument("--lanes", type=int, default=1, help=lanes)
    parser.add_argument("--results", type=Path, default=results, help="the file of all rows")
    parser.add_argument("--page", type=Path, default=page, help="the page")
    return parser


def options_problem(options: argparse.Namespace, known: Collection[str]) -> str:
    """Return a sentence on names that are not known, or on lanes without a core; empty if all is well."""
    if unknown := [name for name in options.names if name not in known]:
        return f"Unknown: {', '.join(unknown)}. Known: {', '.join(known)}."
    return lanes_problem(options.lanes)
