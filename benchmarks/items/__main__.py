"""The command line: ``python -m benchmarks.items measure|page [SETTINGS...]``."""

import logging
import sys
from collections.abc import Sequence

from rich.console import Console

from benchmarks.items.measure import SETTINGS, Row, measured
from benchmarks.items.page import render
from benchmarks.settings import measure_settings
from hf_finetune.cli.display import quiet_libraries

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure the given settings, or all; see ``measure_settings``."""
    return measure_settings(
        *("items", __doc__, arguments),
        row=Row,
        settings=SETTINGS,
        measured=measured,
        line=_line,
        render=render,
        page="movielens.md",
        takes="a quarter of an hour for all",
    )


def _line(row: Row) -> str:
    return f"{row.setting}, seed {row.seed}: HR@10 {row.test['hit_rate_at_10']:.4f}"


if __name__ == "__main__":
    quiet_libraries(Console(stderr=True))
    logging.disable(logging.WARNING)
    sys.exit(main())
