"""The command line: ``python -m benchmarks.kit effects|costs|page [GROUPS...]``."""

import argparse
import logging
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from benchmarks.child import run_child
from benchmarks.inputs import ROOT
from benchmarks.kit.groups import GROUPS
from benchmarks.kit.measure import costs, current, effects
from benchmarks.kit.page import render
from benchmarks.kit.results import Results, read_results, write_results
from hf_finetune.progress import quiet_libraries

__all__ = ["main"]

RESULTS = ROOT / "benchmarks" / "results" / "kit.json"
PAGE = ROOT / "docs" / "kit.md"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure the groups that are named, or all, and write their rows and the page.

    Returns:
        0, or 2 if a group is unknown.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kit", description=__doc__)
    parser.add_argument(
        "what",
        choices=["effects", "costs", "page"],
        help="what each setting gives (an hour or two); what it costs (run nothing else meanwhile); only the page",
    )
    parser.add_argument("groups", nargs="*", help=f"all unless given: {', '.join(GROUPS)}")
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds of the effects")
    parser.add_argument("--rounds", type=int, default=1, help="number of rounds of the costs")
    parser.add_argument("--results", type=Path, default=RESULTS, help="the file of all rows")
    parser.add_argument("--page", type=Path, default=PAGE, help="the page")
    options = parser.parse_args(arguments)
    if unknown := [name for name in options.groups if name not in GROUPS]:
        print(f"Unknown: {', '.join(unknown)}. Known: {', '.join(GROUPS)}.", file=sys.stderr)
        return 2
    results = current(read_results(options.results))
    for name in options.groups or GROUPS:
        with tempfile.TemporaryDirectory(prefix="benchmarks-kit-") as scratch:
            if options.what == "effects":
                results = _effects(name, options.seeds, Path(scratch), results, options.results)
            elif options.what == "costs":
                results = _costs(name, options.rounds, Path(scratch), results, options.results)
    options.page.write_text(render(results), encoding="utf-8")
    return 0


def _effects(name: str, seeds: int, scratch: Path, results: Results, path: Path) -> Results:
    """Run what is not known, and write each row as soon as it is there."""
    known = results
    for row in effects(name, seeds, scratch, known):
        place = (row.group, row.setting, row.seed)
        others = [each for each in results.effects if (each.group, each.setting, each.seed) != place]
        results = replace(results, effects=(*others, row))
        write_results(results, path)
        print(f"{name}, {row.setting}, seed {row.seed}: {row.value:.3f}", flush=True)
    return results


def _costs(name: str, rounds: int, scratch: Path, results: Results, path: Path) -> Results:
    """Run all settings of a group anew; its rows take the place of those that were there."""
    machine = run_child("machine", {})
    rows = []
    for row in costs(name, rounds, scratch):
        rows.append(row)
        print(
            f"{name}, {row.setting}: {row.seconds:.1f} s, {(row.peak_bytes or 0) / 2**20:,.0f} MiB",
            flush=True,
        )
    others = [cost for cost in results.costs if cost.group != name]
    words = f"{machine['cores']} CPU cores" if not machine.get("gpu") else str(machine["gpu"])
    results = replace(results, costs=(*others, *rows), machine=words)
    write_results(results, path)
    return results


if __name__ == "__main__":
    quiet_libraries(Console(stderr=True))
    logging.disable(logging.WARNING)
    sys.exit(main())
