"""Files of tensors that training left, read without unpickling anything else."""

from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from hf_finetune.errors import InputError, Problem

__all__ = ["BROKEN", "broken_state", "read_tensors"]

BROKEN = (AttributeError, EOFError, IndexError, KeyError, RuntimeError, TypeError, ValueError)
"""Errors of torch for a file that is damaged, or that holds something else than it must."""


def read_tensors(path: Path) -> dict[str, Any]:
    """Read a file of tensors and plain values that ``torch.save`` wrote, below names.

    Raises:
        InputError: If it is missing or damaged, or holds something else, which is not unpickled.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (*BROKEN, OSError, UnpicklingError) as error:
        raise InputError(broken_state(path, type(error).__name__)) from error
    if not isinstance(state, dict):
        raise InputError(broken_state(path, f"a {type(state).__name__}"))
    return state


def broken_state(path: Path, value: str) -> Problem:
    """Return the problem of a file of a run directory that does not hold the state that training left."""
    repair = "Restore the file from a copy of the run directory, or begin a new run."
    return Problem(str(path), "must hold the state that training left, as tensors", value, repair)
