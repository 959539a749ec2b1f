"""The command line: ``python -m benchmarks.series measure|page [SETTINGS...]``."""

import logging
import sys
from collections.abc import Sequence

from rich.console import Console

from benchmarks.series.measure import SETTINGS, Row, measured
from benchmarks.series.page import render
from benchmarks.settings import measure_settings
from hf_finetune.cli.display import quiet_libraries

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure the given settings, or all; see ``measure_settings``."""
    return measure_settings(
        *("series", __doc__, arguments),
        row=Row,
        settings=SETTINGS,
        measured=measured,
        line=_line,
        render=render,
        page="tourism.md",
        takes="about twelve minutes on one core for each seed",
    )


def _line(row: Row) -> str:
    return f"{row.setting}, seed {row.seed}: MASE {row.test['mase']:.3f}"


if __name__ == "__main__":
    quiet_libraries(Console(stderr=True))
    logging.disable(logging.WARNING)
    sys.exit(main())
