"""Replace each defence of the package in turn and check that the tests that guard it fail. Writes docs/mutations.md.

    python tools/mutations.py              all defences
    python tools/mutations.py WORD ...     defences whose description or code contains all words; no page is written
    python tools/mutations.py --page       write the page without running tests, after names have changed

A test declares each defence that it guards with a marker:

    @pytest.mark.defends("hf_finetune.models.build:set_seed", why="A new head follows from the seed")

``by`` is what replaces the defence (see ``tests/removals.py``; by default it is removed), and ``ids`` lists the
parameter sets of the test that must fail (all by default). Of several tests of one defence, at least one gives ``why``.

One session of pytest collects the tests. For each defence the process forks, and the child runs the tests with the
defence replaced: no file changes, and no replacement outlives its child.
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

__all__ = ["PAGE", "Collector", "Defence", "MutationRun", "main", "page"]

PAGE = ROOT / "docs" / "mutations.md"
HEADER = """\
# Tests that guard each defence

Each defence of the package was replaced in turn while its tests ran, and all tests in the last column failed. They pass
with every defence in place. `python tools/mutations.py` repeats this and writes this page. The tests declare their
defences with `@pytest.mark.defends`.

| Defence | Code | Replaced by | Tests that fail |
|---|---|---|---|
"""


@dataclass
class Defence:
    """A defence and the tests that guard it.

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
    """A plugin of pytest that collects the declared defences.

    Attributes:
        defences: The defences, sorted by their code.
    """

    def __init__(self) -> None:
        self.defences: list[Defence] = []

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Collect the defences of all collected tests.

        Raises:
            pytest.UsageError: If a declaration is wrong.
        """
        defences: dict[tuple[str, Any], Defence] = {}
        for item in session.items:
            for mark in item.iter_markers("defends"):
                _declare(defences, item, *mark.args, **mark.kwargs)
        self.defences = sorted(defences.values(), key=lambda defence: (defence.target, defence.why))
        _check(self.defences, {item.nodeid for item in session.items})


class MutationRun(Collector):
    """A plugin of pytest that runs the tests of each defence with the defence replaced.

    Args:
        words: Words that the description or code of a defence must contain to be replaced.

    Attributes:
        unexpected: Number of tests that passed without a defence, or failed with all defences.
    """

    def __init__(self, words: Sequence[str]):
        super().__init__()
        self.words, self.unexpected = [word.lower() for word in words], 0

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Collect and select the defences."""
        super().pytest_collection_finish(session)
        self.defences = [
            defence
            for defence in self.defences
            if all(word in f"{defence.why} {defence.target}".lower() for word in self.words)
        ]

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Run the tests of all defences with the defences in place, then those of each defence without it."""
        items = {item.nodeid: item for item in session.items}
        declared = {test for defence in self.defences for test in defence.tests}
        tests = [test for test in items if test in declared]
        outcomes = _run_in_fork(items, tests, None)
        for test in tests:
            if outcomes.get(test) != "passed":
                self.unexpected += 1
                print(f"\nWith all defences in place: {test} {outcomes.get(test, 'ended the process')}")
        for number, defence in enumerate(self.defences, 1):
            print(f"\n[{number}/{len(self.defences)}] {defence.why} ({defence.target})", flush=True)
            outcomes = _run_in_fork(items, defence.tests, defence)
            for test in defence.tests:
                outcome = outcomes.get(test, "ended the process")
                self.unexpected += not outcome.startswith("failed")
                print(f"    {test.rpartition('::')[2]} {outcome}")
        return True


def main(arguments: Sequence[str]) -> int:
    """Run the tests with and without each defence. Returns 1 if a test does not detect that a defence is missing."""
    if list(arguments) == ["--page"]:
        PAGE.write_text(page(), encoding="utf-8")
        return 0
    run = MutationRun(arguments)
    with tempfile.TemporaryDirectory() as scratch:
        code = _pytest(run, f"--basetemp={scratch}/tests")
    if code or run.unexpected or not run.defences:
        print(
            f"{len(run.defences)} defences, {run.unexpected} tests with an unexpected outcome. "
            f"pytest exited with {code}."
        )
        return 1
    print(f"{len(run.defences)} defences: without each of them, all its tests fail.")
    if not arguments:
        PAGE.write_text(table(run.defences), encoding="utf-8")
    return 0


def page() -> str:
    """Return the page for the declared defences, without running their tests.

    Raises:
        ValueError: If a declaration is wrong.
    """
    collector = Collector()
    if code := _pytest(collector, "--collect-only"):
        raise ValueError(f"The declarations of the defences are wrong: pytest exited with {code}.")
    return table(collector.defences)


def table(defences: Sequence[Defence]) -> str:
    """Return the page."""
    rows = []
    for defence in defences:
        tests = "<br>".join(f"`{test.rpartition('::')[2]}`" for test in defence.tests)
        replacement = removals.describe(defence.target, defence.by)
        rows.append(f"| {defence.why} | `{defence.target}` | {replacement} | {tests} |\n")
    return HEADER + "".join(rows)


def _pytest(plugin: Collector, *options: str) -> int:
    """Run pytest with a plugin on the test files that declare defences, and return its exit code."""
    os.chdir(ROOT)
    files = sorted(
        path for path in TESTS.rglob("test_*.py") if "pytest.mark.defends(" in path.read_text("utf-8")
    )
    return int(pytest.main(["-qq", "-p", "no:cacheprovider", *options, *map(str, files)], plugins=[plugin]))


def _declare(
    defences: dict[tuple[str, Any], Defence],
    item: pytest.Item,
    target: str,
    *,
    why: str = "",
    by: Any = None,
    ids: Sequence[str] | None = None,
) -> None:
    """Add the declaration of one marker."""
    defences.setdefault((target, by), Defence(target, by)).add(item, why, ids)


def _check(defences: Sequence[Defence], tests: set[str]) -> None:
    """Check that each defence has a reason, a description of its replacement, code and tests that exist.

    Raises:
        pytest.UsageError: If not.
    """
    for defence in defences:
        if not defence.why:
            raise pytest.UsageError(f"{defence.target}: none of {', '.join(defence.tests)} gives 'why'.")
        if missing := set(defence.tests) - tests:
            raise pytest.UsageError(f"{defence.target}: there is no {', '.join(sorted(missing))}.")
        try:
            removals.describe(defence.target, defence.by)
            removals.locate(defence.target)
        except (ImportError, AttributeError) as error:
            raise pytest.UsageError(f"{defence.target}: {error}") from error


def _run_in_fork(
    items: dict[str, pytest.Item], tests: Sequence[str], defence: Defence | None
) -> dict[str, str]:
    """Run tests in a child process without a defence. Returns ``passed`` or ``failed: REASON`` for each."""
    with tempfile.NamedTemporaryFile() as file:
        child = os.fork()
        if child == 0:
            try:
                if defence is not None:
                    removals.replace_in_launched(defence.target, defence.by)
                    removals.replace(defence.target, defence.by)
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
