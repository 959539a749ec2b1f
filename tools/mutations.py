"""Take each defence of the package away in turn, and see that its tests fail. Writes docs/mutations.md.

    python tools/mutations.py              every defence; takes some minutes
    python tools/mutations.py WORD         those whose description or place holds a word; writes nothing

The tests run in a process of their own, into which this module goes as a plugin of pytest: no file is changed.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from mutation_list import MUTATIONS, Mutation

__all__ = ["apply", "main", "pytest_configure", "pytest_runtest_logreport", "table"]

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "mutations.md"
CHOICE, RESULTS = "HF_FINETUNE_MUTATION", "HF_FINETUNE_MUTATION_RESULTS"
HEADER = """\
# What each defence is worth

Each defence of the package was taken away in turn, by putting something else in its place while the tests ran, and
these tests failed then. With every defence in its place they all pass. `python tools/mutations.py` does it again and
makes this page; the list is in `tools/mutation_list.py`.

| Defence | Where | In its place | Fails then |
|---|---|---|---|
"""


def main(words: Sequence[str]) -> int:
    """Run the tests with and without each defence. Gives 1 if one is not missed."""
    chosen = [
        mutation
        for mutation in MUTATIONS
        if all(word.lower() in f"{mutation.defence} {mutation.target}".lower() for word in words)
    ]
    wanted = sorted({test for mutation in chosen for test in mutation.tests})
    whole = _outcomes(wanted, None)
    broken = [test for test in wanted if whole.get(test) != "passed"]
    for test in broken:
        print(f"{test} must pass while every defence is in its place. It {whole.get(test, 'was not found')}.")
    if broken:
        return 1
    missed = 0
    for number, mutation in enumerate(chosen, 1):
        outcomes = _outcomes(mutation.tests, MUTATIONS.index(mutation))
        survived = [test for test in mutation.tests if outcomes.get(test) != "failed"]
        missed += len(survived)
        print(
            f"[{number}/{len(chosen)}] {mutation.defence}: {'NOT MISSED by' if survived else 'missed'}",
            *survived,
        )
    if not words and not missed:
        PAGE.write_text(table(), encoding="utf-8")
        print(f"{len(chosen)} defences, each of them missed: {PAGE.relative_to(ROOT)}")
    return 1 if missed else 0


def table() -> str:
    """Give the page."""
    rows = []
    for mutation in MUTATIONS:
        place = mutation.target.replace(":", ".").removeprefix("hf_finetune.")
        tests = "<br>".join(f"`{test.rpartition('::')[2]}`" for test in mutation.tests)
        rows.append(f"| {mutation.defence} | `{place}` | {mutation.removal} | {tests} |\n")
    return HEADER + "".join(rows)


def apply(mutation: Mutation) -> None:
    """Put something else in the place of a defence, wherever the package has a name for it."""
    module_name, _, path = mutation.target.partition(":")
    *owners, name = path.split(".")
    owner: Any = import_module(module_name)
    for step in owners:
        owner = getattr(owner, step)
    original = getattr(owner, name)
    instead = mutation.become(original)
    setattr(owner, name, instead)
    if not owners:
        for other in [module for key, module in sys.modules.items() if key.startswith("hf_finetune.")]:
            if getattr(other, name, None) is original:
                setattr(other, name, instead)


def _outcomes(tests: Sequence[str], choice: int | None) -> dict[str, str]:
    """Run tests with one defence away, or with none. Gives ``passed`` or ``failed`` for each that was found."""
    with tempfile.TemporaryDirectory() as scratch:
        results = Path(scratch) / "outcomes.json"
        paths = os.pathsep.join([str(ROOT / "tools"), str(ROOT), os.environ.get("PYTHONPATH", "")])
        environment = {**os.environ, "PYTHONPATH": paths, RESULTS: str(results)}
        if choice is not None:
            environment[CHOICE] = str(choice)
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "mutations",
            f"--basetemp={scratch}/tests",
            *tests,
        ]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        if not results.is_file():
            print(done.stdout[-2000:], done.stderr[-2000:])
            return {}
        outcomes: dict[str, str] = json.loads(results.read_text(encoding="utf-8"))
        return outcomes


# What follows is the plugin.

_SEEN: dict[str, str] = {}


def pytest_configure(config: Any) -> None:
    """Take the defence away before the tests import anything."""
    if choice := os.environ.get(CHOICE):
        apply(MUTATIONS[int(choice)])


def pytest_runtest_logreport(report: Any) -> None:
    """Note how each test ended."""
    if report.when == "call" or report.failed:
        _SEEN[report.nodeid] = "failed" if report.failed else _SEEN.get(report.nodeid, report.outcome)


def pytest_sessionfinish() -> None:
    """Write it down."""
    if path := os.environ.get(RESULTS):
        Path(path).write_text(json.dumps(_SEEN), encoding="utf-8")


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
