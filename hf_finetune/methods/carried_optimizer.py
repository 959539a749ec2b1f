"""Carry optimizer state (moments, step counts) from one stage to the next, by parameter name."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch

from hf_finetune.errors import InputError
from hf_finetune.files import atomic_file
from hf_finetune.methods.base import Method, StageContext
from hf_finetune.models.tensor_files import broken_state, read_tensors
from hf_finetune.planning.groups import ParameterGroup
from hf_finetune.recipe.method_rules import CARRIED_OPTIMIZER

__all__ = [
    "OPTIMIZER_FILE",
    "CarriedOptimizer",
    "load_state",
    "optimizer_state",
    "restore_optimizer_state",
    "save_state",
]

OptimizerState = dict[str, dict[str, Any]]
"""Optimizer state, tensors and step counts, by parameter name and state key."""

OPTIMIZER_FILE = "optimizer.pt"
"""File in the folder of a stage with the optimizer state that belongs to the saved weights."""


class CarriedOptimizer(Method):
    """Start the optimizer with the state of the previous stage; a resumed stage uses the state of its checkpoint.

    Args:
        state: Optimizer state by parameter name, from ``load_state``.
    """

    rules = CARRIED_OPTIMIZER

    def __init__(self, state: Mapping[str, Mapping[str, Any]]):
        self.state = state

    @classmethod
    def build(cls, context: StageContext) -> "CarriedOptimizer | None":
        """Return the method if the stage has ``carry_optimizer``, or None."""
        if not context.stage.spec.carry_optimizer:
            return None
        return cls(load_state(context.previous / OPTIMIZER_FILE, context.stage.plan.carried))

    def on_optimizer(self, optimizer: torch.optim.Optimizer, groups: Sequence[ParameterGroup]) -> None:
        """Load the state into the optimizer."""
        if self.state:
            restore_optimizer_state(optimizer, groups, self.state)


def optimizer_state(optimizer: torch.optim.Optimizer, groups: Sequence[ParameterGroup]) -> OptimizerState:
    """Return the optimizer state of each parameter that has been updated, by parameter name.

    Args:
        optimizer: Optimizer of the planned groups, in their order.
        groups: Planned parameter groups.
    """
    state = optimizer.state_dict()["state"]
    return {name: dict(state[index]) for index, name in enumerate(_names(groups)) if index in state}


def restore_optimizer_state(
    optimizer: torch.optim.Optimizer,
    groups: Sequence[ParameterGroup],
    carried: Mapping[str, Mapping[str, Any]],
) -> None:
    """Load carried state into a new optimizer; parameters without carried state keep their initial state.

    Args:
        optimizer: New optimizer of the planned groups, in their order.
        groups: Planned parameter groups.
        carried: Optimizer state by parameter name, from ``optimizer_state`` of an optimizer of the same class.
    """
    fresh = optimizer.state_dict()
    known = {index: name for index, name in enumerate(_names(groups)) if name in carried}
    # Adagrad initializes state when it is created: parameters without carried state keep that
    fresh["state"] = {
        **fresh["state"],
        **{index: deepcopy(dict(carried[name])) for index, name in known.items()},
    }
    optimizer.load_state_dict(fresh)  # also moves the state to the parameters' devices


def save_state(state: OptimizerState, path: Path) -> None:
    """Write optimizer state to a file, atomically.

    Args:
        state: Optimizer state of each parameter by name, such as the moments of Adam.
        path: File to write.
    """
    with atomic_file(path) as temporary:
        torch.save(state, temporary)


def load_state(path: Path, names: Sequence[str]) -> OptimizerState:
    """Load the optimizer state of the named parameters; those that were never updated have none.

    Args:
        path: File that ``save_state`` wrote.
        names: Names of the parameters.

    Returns:
        Optimizer state of each parameter by name.

    Raises:
        InputError: If the file is not a mapping from parameter names to optimizer state.
    """
    state = read_tensors(path)
    if not all(isinstance(values, dict) for values in state.values()):
        raise InputError(broken_state(path, "not a mapping from parameter names to optimizer state"))
    return {name: state[name] for name in names if name in state}


def _names(groups: Sequence[ParameterGroup]) -> list[str]:
    """Return the parameter names in the order of ``state_dict()``: by group, and in the group's order."""
    return [name for group in groups for name in group.parameters]
