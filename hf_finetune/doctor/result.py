"""What a check is and what it finds."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

__all__ = ["Check", "CheckResult", "State", "counted", "sentence", "some"]

State = Literal["pass", "fail", "skipped"]


@dataclass(frozen=True)
class CheckResult:
    """One row of the table.

    Attributes:
        name: What was checked.
        state: How it ended.
        measured: What was found, or why the check was skipped; a sentence.
        repair: What to do about it; for a check that passed, a suggestion or nothing.
    """

    name: str
    state: State
    measured: str
    repair: str = ""


@dataclass(frozen=True)
class Check:
    """A check that is still to be done.

    Attributes:
        name: As in its result.
        run: Takes an empty folder of its own.
    """

    name: str
    run: Callable[[Path], CheckResult]


def counted(count: int, noun: str, several: str = "") -> str:
    """Write a number with its noun: 1 thread, 2 threads."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {several or f'{noun}s'}"


def sentence(parts: Sequence[str]) -> str:
    """Make one sentence of several clauses."""
    joined = "; ".join(parts)
    return f"{joined[0].upper()}{joined[1:]}."


def some(names: Sequence[str], shown: int = 3) -> str:
    """List the first few names, and say how many more there are."""
    listed = ", ".join(names[:shown])
    return listed if len(names) <= shown else f"{listed} and {len(names) - shown} more"
