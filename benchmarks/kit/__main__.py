"""The command line: ``python -m benchmarks.kit measure|page [GROUPS...]``."""

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
from benchmarks.options import measuring_parser, parse_options
from hf_finetune.cli.display import quiet_libraries

__all__ = ["main"]

RESULTS = ROOT / "benchmarks" / "results" / "kit.json"
PAGE = ROOT / "docs" / "kit.md"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure the given groups, or all, and write their rows and the page.

    Returns:
        0, or 2 if a group is unknown or a lane would have no core.
    """
    parser = measuring_parser("python -m benchmarks.kit", __doc__, GROUPS, "hours for all", RESULTS, PAGE)
    parser.add_argument("--again", action="store_true", help="also repeat finished runs")
    options = parse_options(parser, arguments, GROUPS)
    if options is None:
        return 2
    results = current(read_results(options.results))
    if options.what == "measure":
        known = Results() if options.again else results
        names = options.names or list(GROUPS)
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
