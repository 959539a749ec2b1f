"""The command line: ``python -m benchmarks.speech measure|page [SETTINGS...]``."""

import logging
import sys
from collections.abc import Sequence

from rich.console import Console

from benchmarks.settings import measure_settings
from benchmarks.speech.measure import SETTINGS, Row, measured
from benchmarks.speech.page import render
from hf_finetune.cli.display import quiet_libraries

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure the given settings, or all; see ``measure_settings``."""
    return measure_settings(
        *("speech", __doc__, arguments),
        row=Row,
        settings=SETTINGS,
        measured=measured,
        line=_line,
        render=render,
        page="dutch.md",
        takes="about two hours on one core for each seed",
    )


def _line(row: Row) -> str:
    return f"{row.setting}, seed {row.seed}: WER {row.test['wer']:.3f}, before training {row.untrained['wer']:.3f}"


if __name__ == "__main__":
    quiet_libraries(Console(stderr=True))
    logging.disable(logging.WARNING)
    sys.exit(main())
