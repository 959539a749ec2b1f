"""Checks and their results."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

__all__ = ["Check", "CheckResult", "State", "sentence"]

State = Literal["pass", "fail", "skipped"]


@dataclass(frozen=True)
class CheckResult:
    """Result of a check, which is one row of the table.

    Attributes:
        name: Name of the check.
        state: Outcome of the check.
        measured: Sentence on the measured values, or on the reason for skipping the check.
        repair: Fix for a failure; for a check that passed, a suggestion or an empty string.
    """

    name: str
    state: State
    measured: str
    repair: str = ""


@dataclass(frozen=True)
class Check:
    """Check that can be run.

    Attributes:
        name: Name of the check, as in its result.
        run: Function that performs the check, given an empty folder to write to.
    """

    name: str
    run: Callable[[Path], CheckResult]


def sentence(parts: Sequence[str]) -> str:
    """Join clauses into one sentence."""
    joined = "; ".join(parts)
    return f"{joined[0].upper()}{joined[1:]}."
