"""Headless Chromium for the tests of this folder: the installed one, driven by playwright, which downloads none.

Without it, tests/unit/test_report_page.py reads the report, and test_publishing_demo.py calls the page.
"""

import shutil
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "integration"))  # for run_helpers

NAMES = ("chromium", "chromium-browser", "google-chrome")


def pytest_collection_modifyitems(items):
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker("browser")


@pytest.fixture(scope="session")
def chromium():
    """Start the machine's Chromium."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright, of the extra dev")
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        pytest.skip(
            "a page can only be looked at in a browser, and Chromium is not installed (apt-get install chromium)"
        )
    with playwright.sync_playwright() as started:
        # As root, and in most containers, Chromium cannot create its sandbox; it opens pages of the tests only.
        browser = started.chromium.launch(
            executable_path=program, args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        yield browser
        browser.close()


@pytest.fixture
def visit(chromium, request):
    """Return a function that opens a new page, and returns it with its requests and errors.

    The function takes an address and options of a browser context: ``color_scheme``, ``viewport``.
    """
    contexts = []

    def open_page(address, **options):
        context = chromium.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(120_000)
        page.requests, page.complaints = [], []
        page.on("request", lambda asked: page.requests.append(asked.url))
        page.on(
            "console", lambda said: said.type in ("error", "warning") and page.complaints.append(said.text)
        )
        page.on("pageerror", lambda error: page.complaints.append(str(error)))
        page.goto(address)
        return page

    yield open_page
    for context in contexts:
        context.close()
