"""Table of results: columns and colors on a terminal, otherwise one plain line for each check."""

from collections.abc import Iterable
from contextlib import nullcontext
from pathlib import Path
from time import perf_counter

from rich.console import Console
from rich.table import Table
from rich.text import Text

from hf_finetune.doctor.check_suite import CheckSuite, describe_machine, run_check
from hf_finetune.doctor.result import CheckResult

__all__ = ["print_checks", "print_result"]

STYLES = {"pass": "green", "fail": "bold red", "skipped": "yellow"}
NAME_WIDTH, STATE_WIDTH = 24, 7


def print_checks(console: Console, suites: Iterable[CheckSuite], folder: Path) -> bool:
    """Run the checks, print each result immediately, and return whether no check failed.

    Args:
        console: Console to print to.
        suites: Check suites to run.
        folder: Folder for temporary files of the checks.

    Returns:
        Whether no check failed.
    """
    start = perf_counter()
    results: list[CheckResult] = []
    for number, suite in enumerate(suites):
        console.print(describe_machine() if number == 0 else "", markup=False, style="dim")
        console.print(suite.title, markup=False, style="bold")
        if suite.remark:
            console.print(suite.remark, markup=False)
        width = min(max(len(check.name) for check in suite.checks), NAME_WIDTH)
        for check in suite.checks:
            with console.status(check.name) if console.is_terminal else nullcontext():
                result = run_check(check, folder)
            print_result(console, result, width)
            results.append(result)
    console.print(_summary(results, perf_counter() - start), markup=False, style="bold")
    return not any(result.state == "fail" for result in results)


def print_result(console: Console, result: CheckResult, width: int) -> None:
    """Print the result of a check as one row.

    Args:
        console: Console to print to.
        result: Result to print.
        width: Width of the name column, in characters; longer names are wrapped on a terminal.
    """
    label = "Fix: " if result.state == "fail" else "Suggestion: "
    if not console.is_terminal:
        line = f"{result.state:{STATE_WIDTH}}  {result.name:{width}}  {result.measured}"
        console.print(f"{line} {label}{result.repair}" if result.repair else line, markup=False)
        return
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column(width=STATE_WIDTH, style=STYLES[result.state])
    table.add_column(width=width, overflow="fold")
    table.add_column(ratio=1)
    measured = Text(result.measured)
    if result.repair:
        measured.append(f"\n{label}", "bold")
        measured.append(result.repair)
    table.add_row(result.state, Text(result.name), measured)
    console.print(table, soft_wrap=False)


def _summary(results: list[CheckResult], seconds: float) -> str:
    counts = {state: sum(result.state == state for result in results) for state in STYLES}
    words = {"pass": "passed", "fail": "failed", "skipped": "skipped"}
    listed = ", ".join(f"{count} {words[state]}" for state, count in counts.items() if count)
    return f"{len(results)} checks in {seconds:.0f} s: {listed}."
