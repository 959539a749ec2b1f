"""The command line: ``python -m benchmarks.kit measure|page [GROUPS...]``."""

import argparse
import logging
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from benchmarks.inputs import ROOT
from benchmarks.kit.groups import GROUPS
from benchmarks.kit.measure import current, measured
from benchmarks.kit.page import render
from benchmarks.kit.results import Cost, Effect, Results, read_results, write_results
from benchmarks.lanes import lanes_problem
from hf_finetune.progress import quiet_libraries

__all__ = ["main"]

RESULTS = ROOT / "benchmarks" / "results" / "kit.json"
PAGE = ROOT / "docs" / "kit.md"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure the groups that are named, or all, and write their rows and the page.

    Returns:
        0, or 2 if a group is unknown or a lane would have no core.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kit", description=__doc__)
    parser.add_argument(
        "what",
        choices=["measure", "page"],
        help="run what there are no rows of yet (hours for all; run nothing else meanwhile); write the page only",
    )
    parser.add_argument("groups", nargs="*", help=f"all unless given: {', '.join(GROUPS)}")
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds")
    parser.add_argument(
        "--lanes", type=int, default=1, help="number of runs at a time, each on its own cores"
    )
    parser.add_argument("--again", action="store_true", help="run also what there are rows of")
    parser.add_argument("--results", type=Path, default=RESULTS, help="the file of all rows")
    parser.add_argument("--page", type=Path, default=PAGE, help="the page")
    options = parser.parse_intermixed_args(arguments)
    if unknown := [name for name in options.groups if name not in GROUPS]:
        print(f"Unknown: {', '.join(unknown)}. Known: {', '.join(GROUPS)}.", file=sys.stderr)
        return 2
    if problem := lanes_problem(options.lanes):
        print(problem, file=sys.stderr)
        return 2
    results = current(read_results(options.results))
    if options.what == "measure":
        known = Results() if options.again else results
        names = options.groups or list(GROUPS)
        with tempfile.TemporaryDirectory(prefix="benchmarks-kit-") as scratch:
            for effect, cost in measured(names, options.seeds, options.lanes, Path(scratch), known):
                results = results.having(effect, cost)
                write_results(results, options.results)
                print(_line(effect, cost), flush=True)
    options.page.write_text(render(results), encoding="utf-8")
    return 0


def _line(effect: Effect, cost: Cost) -> str:
    memory = f", {cost.peak_bytes / 2**20:,.0f} MiB" if cost.peak_bytes else ""
    return f"{effect.group}, {effect.setting}, seed {effect.seed}: {effect.value:.3f}, {cost.seconds:.1f} s{memory}"


if __name__ == "__main__":
    quiet_libraries(Console(stderr=True))
    logging.disable(logging.WARNING)
    sys.exit(main())
