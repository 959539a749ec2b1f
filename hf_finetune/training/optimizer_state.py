"""Carry an optimizer's state (moments, step counts) from one stage to the next, by the names of the parameters."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch

from hf_finetune.errors import InputError
from hf_finetune.files import replacing
from hf_finetune.models.tensor_files import BROKEN, broken_state, read_tensors
from hf_finetune.planning.groups import ParameterGroup

__all__ = [
    "load_state",
    "optimizer_state",
    "refusing_broken_state",
    "restore_optimizer_state",
    "save_state",
]

State = dict[str, dict[str, Any]]


def optimizer_state(optimizer: torch.optim.Optimizer, groups: Sequence[ParameterGroup]) -> State:
    """Give what an optimizer remembers of each parameter that it has moved, by the parameter's name.

    Args:
        optimizer: Of the planned groups, in their order.
        groups: The planned groups.
    """
    state = optimizer.state_dict()["state"]
    return {name: dict(state[index]) for index, name in enumerate(_names(groups)) if index in state}


def restore_optimizer_state(
    optimizer: torch.optim.Optimizer,
    groups: Sequence[ParameterGroup],
    carried: Mapping[str, Mapping[str, Any]],
) -> None:
    """Give a fresh optimizer the state of the parameters that are named; the others begin anew.

    Args:
        optimizer: Of the planned groups, in their order.
        groups: The planned groups.
        carried: From ``optimizer_state`` of an optimizer of the same kind.
    """
    fresh = optimizer.state_dict()
    known = {index: name for index, name in enumerate(_names(groups)) if name in carried}
    # Adagrad has a state from the start, which what is new keeps
    fresh["state"] = {
        **fresh["state"],
        **{index: deepcopy(dict(carried[name])) for index, name in known.items()},
    }
    optimizer.load_state_dict(fresh)  # which moves it to the parameters' devices


def save_state(state: State, path: Path) -> None:
    """Write a state; the file is whole or not there."""
    with replacing(path) as temporary:
        torch.save(state, temporary)


def load_state(path: Path, names: Sequence[str]) -> State:
    """Read the state of some parameters; those that were never moved have none.

    Raises:
        InputError: If the file holds something else.
    """
    state = read_tensors(path)
    if not all(isinstance(values, dict) for values in state.values()):
        raise InputError(broken_state(path, "no mapping of parameters to their state"))
    return {name: state[name] for name in names if name in state}


@contextmanager
def refusing_broken_state(checkpoint: str | None) -> Iterator[None]:
    """Turn what a library raises for state of another form into a problem of the checkpoint.

    Args:
        checkpoint: The folder that is read; None if none is, and errors stay as they are.

    Raises:
        InputError: If the state is of another optimizer, or none at all. What would have to be unpickled is left to
            the caller.
    """
    try:
        yield
    except BROKEN as error:
        if checkpoint is None:
            raise
        raise InputError(
            broken_state(Path(checkpoint), f"{type(error).__name__}: {error}".rstrip("."))
        ) from error


def _names(groups: Sequence[ParameterGroup]) -> list[str]:
    """List the parameters as ``state_dict()`` numbers them: by group, and in the group's order."""
    return [name for group in groups for name in group.parameters]
