"""Replace each safeguard of the package in turn and check that its tests fail. Writes docs/mutations.md.

    python tools/mutations.py              all safeguards
    python tools/mutations.py WORD ...     safeguards whose description or code contains all words; no page is written
    python tools/mutations.py --page       write the page without running tests, after names have changed

A test declares each safeguard that it tests with a marker:

    @pytest.mark.defends("hf_finetune.models.build:set_seed", why="A new head follows from the seed")

``by`` is what replaces the safeguard (see ``tests/removals.py``; by default it is removed), and ``ids`` lists the
parameter sets of the test that must fail (all by default). At least one test of a safeguard gives ``why``.

One session of pytest collects the tests. For each safeguard the process forks, and the child runs the tests with the
safeguard replaced: no file changes, and no replacement outlives its child.
"""

import json
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from _pytest.runner import runtestprotocol

ROOT = Path(__file__).parents[1]
TESTS = ROOT / "tests"
sys.path.insert(0, str(TESTS))

import removals  # noqa: E402

__all__ = ["PAGE", "Collector", "MutationRun", "Safeguard", "main", "page"]

PAGE = ROOT / "docs" / "mutations.md"
HEADER = """\
# Tests of each safeguard

Each safeguard of the package was replaced in turn while its tests ran, and all tests in the last column failed. They
pass with every safeguard in place. `python tools/mutations.py` repeats this and writes this page. The tests declare
their safeguards with `@pytest.mark.defends`.

| Safeguard | Code | Replaced by | Tests that fail |
|---|---|---|---|
"""


@dataclass
class Safeguard:
    """A safeguard and the tests that guard it.

    Attributes:
        target: Its code, ``module:name``.
        by: What replaces it; None if it is removed.
        why: What it ensures.
        tests: Node ids of the tests that must fail without it.
    """

    target: str
    by: Any
    why: str = ""
    tests: list[str] = field(default_factory=list)

    def add(self, item: pytest.Item, why: str, ids: Sequence[str] | None) -> None:
        """Add the tests that an item declares.

        Raises:
            pytest.UsageError: If another test gives another reason.
        """
        if why and self.why not in ("", why):
            raise pytest.UsageError(f"{self.target}: the reasons '{self.why}' and '{why}' differ.")
        self.why = self.why or why
        name = item.nodeid.partition("[")[0]
        tests = [item.nodeid] if ids is None else [f"{name}[{parameters}]" for parameters in ids]
        self.tests += [test for test in tests if test not in self.tests]


class Collector:
    """A plugin of pytest that collects the declared safeguards.

    Attributes:
        safeguards: The safeguards, sorted by their code.
    """

    def __init__(self) -> None:
        self.safeguards: list[Safeguard] = []

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Collect the safeguards of all collected tests.

        Raises:
            pytest.UsageError: If a declaration is wrong.
        """
        safeguards: dict[tuple[str, Any], Safeguard] = {}
        for item in session.items:
            for mark in item.iter_markers("defends"):
                _declare(safeguards, item, *mark.args, **mark.kwargs)
        self.safeguards = sorted(safeguards.values(), key=lambda safeguard: (safeguard.target, safeguard.why))
        _check(self.safeguards, {item.nodeid for item in session.items})


class MutationRun(Collector):
    """A plugin of pytest that runs the tests of each safeguard with the safeguard replaced.

    Args:
        words: Words that the description or code of a safeguard must contain to be replaced.

    Attributes:
        unexpected: Number of tests that passed without a safeguard, or failed with all safeguards.
    """

    def __init__(self, words: Sequence[str]):
        super().__init__()
        self.words, self.unexpected = [word.lower() for word in words], 0

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Collect and select the safeguards."""
        super().pytest_collection_finish(session)
        self.safeguards = [
            safeguard
            for safeguard in self.safeguards
            if all(word in f"{safeguard.why} {safeguard.target}".lower() for word in self.words)
        ]

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Run the tests of all safeguards with the safeguards in place, then those of each safeguard without it."""
        items = {item.nodeid: item for item in session.items}
        declared = {test for safeguard in self.safeguards for test in safeguard.tests}
        tests = [test for test in items if test in declared]
        outcomes = _run_in_fork(items, tests, None)
        for test in tests:
            if outcomes.get(test) != "passed":
                self.unexpected += 1
                print(f"\nWith all safeguards in place: {test} {outcomes.get(test, 'ended the process')}")
        for number, safeguard in enumerate(self.safeguards, 1):
            print(f"\n[{number}/{len(self.safeguards)}] {safeguard.why} ({safeguard.target})", flush=True)
            outcomes = _run_in_fork(items, safeguard.tests, safeguard)
            for test in safeguard.tests:
                outcome = outcomes.get(test, "ended the process")
                self.unexpected += not outcome.startswith("failed")
                print(f"    {test.rpartition('::')[2]} {outcome}")
        return True


def main(arguments: Sequence[str]) -> int:
    """Run the tests with and without each safeguard. Returns 1 if a test does not detect that one is missing."""
    if list(arguments) == ["--page"]:
        PAGE.write_text(page(), encoding="utf-8")
        return 0
    run = MutationRun(arguments)
    with tempfile.TemporaryDirectory() as scratch:
        code = _pytest(run, f"--basetemp={scratch}/tests")
    if code or run.unexpected or not run.safeguards:
        print(
            f"{len(run.safeguards)} safeguards, {run.unexpected} tests with an unexpected outcome. "
            f"pytest exited with {code}."
        )
        return 1
    print(f"{len(run.safeguards)} safeguards: without each of them, all its tests fail.")
    if not arguments:
        PAGE.write_text(table(run.safeguards), encoding="utf-8")
    return 0


def page() -> str:
    """Return the page for the declared safeguards, without running their tests.

    Raises:
        ValueError: If a declaration is wrong.
    """
    collector = Collector()
    if code := _pytest(collector, "--collect-only"):
        raise ValueError(f"The declarations of the safeguards are wrong: pytest exited with {code}.")
    return table(collector.safeguards)


def table(safeguards: Sequence[Safeguard]) -> str:
    """Return the page."""
    rows = []
    for safeguard in safeguards:
        tests = "<br>".join(f"`{test.rpartition('::')[2]}`" for test in safeguard.tests)
        replacement = removals.describe(safeguard.target, safeguard.by)
        rows.append(f"| {safeguard.why} | `{safeguard.target}` | {replacement} | {tests} |\n")
    return HEADER + "".join(rows)


def _pytest(plugin: Collector, *options: str) -> int:
    """Run pytest with a plugin on the test files that declare safeguards, and return its exit code."""
    os.chdir(ROOT)
    files = sorted(
        path for path in TESTS.rglob("test_*.py") if "pytest.mark.defends(" in path.read_text("utf-8")
    )
    return int(pytest.main(["-qq", "-p", "no:cacheprovider", *options, *map(str, files)], plugins=[plugin]))


def _declare(
    safeguards: dict[tuple[str, Any], Safeguard],
    item: pytest.Item,
    target: str,
    *,
    why: str = "",
    by: Any = None,
    ids: Sequence[str] | None = None,
) -> None:
    """Add the declaration of one marker."""
    safeguards.setdefault((target, by), Safeguard(target, by)).add(item, why, ids)


def _check(safeguards: Sequence[Safeguard], tests: set[str]) -> None:
    """Check that each safeguard has a reason, a description of its replacement, code and tests that exist.

    Raises:
        pytest.UsageError: If not.
    """
    for safeguard in safeguards:
        if not safeguard.why:
            raise pytest.UsageError(f"{safeguard.target}: none of {', '.join(safeguard.tests)} gives 'why'.")
        if missing := set(safeguard.tests) - tests:
            raise pytest.UsageError(f"{safeguard.target}: there is no {', '.join(sorted(missing))}.")
        try:
            removals.describe(safeguard.target, safeguard.by)
            removals.locate(safeguard.target)
        except (ImportError, AttributeError) as error:
            raise pytest.UsageError(f"{safeguard.target}: {error}") from error


def _run_in_fork(
    items: dict[str, pytest.Item], tests: Sequence[str], safeguard: Safeguard | None
) -> dict[str, str]:
    """Run tests in a child process without a safeguard. Returns ``passed`` or ``failed: REASON`` for each."""
    with tempfile.NamedTemporaryFile() as file:
        child = os.fork()
        if child == 0:
            try:
                if safeguard is not None:
                    removals.replace_in_launched(safeguard.target, safeguard.by)
                    removals.replace(safeguard.target, safeguard.by)
                Path(file.name).write_text(json.dumps(_outcomes(items, tests)), encoding="utf-8")
            finally:
                os._exit(0)  # without the parent's cleanup
        os.waitpid(child, 0)
        content = Path(file.name).read_text(encoding="utf-8")
    outcomes: dict[str, str] = json.loads(content) if content else {}
    return outcomes


def _outcomes(items: dict[str, pytest.Item], tests: Sequence[str]) -> dict[str, str]:
    """Run tests one after another in this process, and return their outcomes."""
    outcomes = {}
    for test, following in zip(tests, [*tests[1:], None], strict=True):
        nextitem = items[following] if following is not None else None
        for report in runtestprotocol(items[test], log=False, nextitem=nextitem):
            if report.failed:
                crash = getattr(report.longrepr, "reprcrash", None)
                reason = str(crash.message if crash else report.longrepr).strip()
                outcomes[test] = f"failed: {reason.partition(chr(10))[0][:120]}"
            elif report.when == "call":
                outcomes[test] = report.outcome
    return outcomes


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
