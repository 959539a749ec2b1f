"""The command line: ``python -m benchmarks.audio measure|page [SETTINGS...]``."""

import logging
import sys
from collections.abc import Sequence

from rich.console import Console

from benchmarks.audio.measure import SETTINGS, Row, measured
from benchmarks.audio.page import render
from benchmarks.settings import measure_settings
from hf_finetune.cli.display import quiet_libraries

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure the given settings, or all; see ``measure_settings``."""
    return measure_settings(
        *("audio", __doc__, arguments),
        row=Row,
        settings=SETTINGS,
        measured=measured,
        line=_line,
        render=render,
        page="drums.md",
        takes="an hour for all",
    )


def _line(row: Row) -> str:
    return f"{row.setting}, seed {row.seed}, fold {row.fold}: {row.seconds:.0f} s"


if __name__ == "__main__":
    quiet_libraries(Console(stderr=True))
    logging.disable(logging.WARNING)
    sys.exit(main())
