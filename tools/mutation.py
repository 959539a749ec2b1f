"""A defence of the package, and what takes it away."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

__all__ = ["Mutation"]


@dataclass(frozen=True)
class Mutation:
    """A defence, and its removal.

    Attributes:
        defence: What it guards against.
        target: Where it is, ``module:name``.
        removal: What is put in its place, in words.
        become: Gives what is put in its place, from what is there.
        tests: Tests that must fail without it.
    """

    defence: str
    target: str
    removal: str
    become: Callable[[Any], Any]
    tests: tuple[str, ...]
