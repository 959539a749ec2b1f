"""Take each defence of the package away in turn, and see that its tests fail. Writes docs/mutations.md.

    python tools/mutations.py              every defence
    python tools/mutations.py WORD ...     those whose description or place holds all of these; writes nothing

One session of pytest collects the tests. For each defence the process forks, and the child runs the tests without it:
no file is changed, and nothing is left of one removal when the next begins.
"""

import json
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from _pytest.runner import runtestprotocol
from mutation import Mutation
from mutation_list import MUTATIONS

__all__ = ["Removals", "apply", "apply_here", "main", "table"]

ROOT = Path(__file__).parents[1]
# The number of a defence that processes launched by a test are to do without.
WITHOUT = "HF_FINETUNE_TESTS_WITHOUT"
PAGE = ROOT / "docs" / "mutations.md"
HEADER = """\
# What each defence is worth

Each defence of the package was taken away in turn, by putting something else in its place while the tests ran, and
these tests failed then. With every defence in its place they all pass. `python tools/mutations.py` does it again and
makes this page; the list is in `tools/mutation_list.py`.

| Defence | Where | In its place | Fails then |
|---|---|---|---|
"""


def main(words: Sequence[str]) -> int:
    """Run the tests with and without each defence. Gives 1 if a test does not notice that one is gone."""
    os.chdir(ROOT)
    sys.path.insert(0, str(ROOT))
    chosen = [
        mutation
        for mutation in MUTATIONS
        if all(word.lower() in f"{mutation.defence} {mutation.target}".lower() for word in words)
    ]
    removals = Removals(chosen)
    wanted = sorted({test for mutation in chosen for test in mutation.tests})
    with tempfile.TemporaryDirectory() as scratch:
        options = ["-q", "-p", "no:cacheprovider", f"--basetemp={scratch}/tests"]
        code = pytest.main([*options, *wanted], plugins=[removals])
    if removals.unexpected or not removals.done:
        print(
            f"{removals.unexpected} tests do not tell a defence from its absence. pytest ends with {int(code)}."
        )
        return 1
    print(f"{len(chosen)} defences, each missed by its tests.")
    if not words:
        PAGE.write_text(table(), encoding="utf-8")
    return 0


def table() -> str:
    """Give the page."""
    rows = []
    for mutation in MUTATIONS:
        place = mutation.target.replace(":", ".").removeprefix("hf_finetune.")
        tests = "<br>".join(f"`{test.rpartition('::')[2]}`" for test in mutation.tests)
        rows.append(f"| {mutation.defence} | `{place}` | {mutation.removal} | {tests} |\n")
    return HEADER + "".join(rows)


def apply(mutation: Mutation, put: Callable[[Any, str, Any], None] = setattr) -> None:
    """Put something else in the place of a defence, wherever the package or a test has a name for it."""
    module_name, _, path = mutation.target.partition(":")
    *owners, name = path.split(".")
    owner: Any = import_module(module_name)
    for step in owners:
        owner = getattr(owner, step)
    original = getattr(owner, name)
    instead = mutation.become(original)
    put(owner, name, instead)
    if not owners and getattr(original, "__module__", None) == module_name:
        for key, module in list(sys.modules.items()):
            ours = key.startswith("hf_finetune.") or key.startswith(("test_", "stage_helpers"))
            if ours and getattr(module, name, None) is original:
                put(module, name, instead)


def apply_here() -> None:
    """Do without the defence that the tests which launched this process do without, if there is one."""
    if number := os.environ.get(WITHOUT):
        apply(MUTATIONS[int(number)])


class Removals:
    """A plugin of pytest that runs the tests of each defence without it, in place of running them once.

    Args:
        mutations: The defences to take away.

    Attributes:
        unexpected: Number of tests that passed without a defence, or failed with all of them.
        done: Whether all was run.
    """

    def __init__(self, mutations: Sequence[Mutation]):
        self.mutations, self.unexpected, self.done = tuple(mutations), 0, False

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Run all tests, and then those of each defence without it."""
        items = {item.nodeid: item for item in session.items}
        whole = _in_fork(items, list(items), None)
        for test in items:
            if whole.get(test) != "passed":
                self.unexpected += 1
                print(f"\nWith every defence in its place, {test} {whole.get(test, 'ended the process')}")
        for number, mutation in enumerate(self.mutations, 1):
            print(f"\n[{number}/{len(self.mutations)}] {mutation.defence}", flush=True)
            outcomes = _in_fork(items, mutation.tests, mutation)
            for test in mutation.tests:
                outcome = outcomes.get(test, "ended the process")
                self.unexpected += not outcome.startswith("failed")
                print(f"    {test.rpartition('::')[2]} {outcome}")
        self.done = True
        return True


def _in_fork(
    items: dict[str, pytest.Item], tests: Sequence[str], mutation: Mutation | None
) -> dict[str, str]:
    """Run tests in a child of this process. Gives ``passed`` or ``failed: WHY`` for each."""
    with tempfile.NamedTemporaryFile() as file:
        child = os.fork()
        if child == 0:
            try:
                if mutation is not None:
                    os.environ[WITHOUT] = str(MUTATIONS.index(mutation))
                    apply(mutation)
                Path(file.name).write_text(json.dumps(_outcomes(items, tests)), encoding="utf-8")
            finally:
                os._exit(0)  # nothing of the parent is to be cleaned up here
        os.waitpid(child, 0)
        content = Path(file.name).read_text(encoding="utf-8")
    outcomes: dict[str, str] = json.loads(content) if content else {}
    return outcomes


def _outcomes(items: dict[str, pytest.Item], tests: Sequence[str]) -> dict[str, str]:
    found = {}
    for test, following in zip(tests, [*tests[1:], None], strict=True):
        nextitem = items[following] if following is not None else None
        for report in runtestprotocol(items[test], log=False, nextitem=nextitem):
            if report.failed:
                crash = getattr(report.longrepr, "reprcrash", None)
                reason = str(crash.message if crash else report.longrepr).strip()
                found[test] = f"failed: {reason.partition(chr(10))[0][:120]}"
            elif report.when == "call":
                found[test] = report.outcome
    return found


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
