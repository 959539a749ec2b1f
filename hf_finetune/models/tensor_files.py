"""Read the tensor files of a run, without unpickling other objects."""

from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from hf_finetune.errors import InputError, Problem

__all__ = ["STATE_ERRORS", "broken_state", "read_tensors"]

STATE_ERRORS = (AttributeError, EOFError, IndexError, KeyError, RuntimeError, TypeError, ValueError)
"""Exceptions that torch raises for a file that is damaged or has unexpected content."""


def read_tensors(path: Path) -> dict[str, Any]:
    """Return the dictionary of tensors and plain values in a file that ``torch.save`` wrote.

    Raises:
        InputError: If the file is missing or damaged, or contains other objects, which are not unpickled.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (*STATE_ERRORS, OSError, UnpicklingError) as error:
        raise InputError(broken_state(path, type(error).__name__)) from error
    if not isinstance(state, dict):
        raise InputError(broken_state(path, f"a {type(state).__name__}"))
    return state


def broken_state(path: Path, value: str) -> Problem:
    """Return the problem of a file in a run directory that does not contain the saved state of the training."""
    repair = "Restore the file from a copy of the run directory, or start a new run."
    return Problem(str(path), "must contain the saved training state as tensors", value, repair)
