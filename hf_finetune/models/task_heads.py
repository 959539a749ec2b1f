"""One backbone under the last layers of several tasks: each example gets the logits of all of them."""

from collections.abc import Mapping, Sequence

import torch
from torch import nn

__all__ = ["TaskHeads"]

PREFIX, VARIANCE = "task_", "log_variance_"


class TaskHeads(nn.Module):
    """Stands in the place of the last layer of a classifier, and puts the logits of all tasks side by side.

    Every head computes for every example, whatever task it is of: so each of their weights has a gradient in every
    step and on every process, which is 0 where the loss leaves a task's logits out.

    With learnt weights, a logarithm of each task's variance stands behind the logits, the same for each example.

    Args:
        heads: The last layer of each task, by its name.
        learns_weights: Whether each task has such a variance.
    """

    def __init__(self, heads: Mapping[str, nn.Module], learns_weights: bool = False):
        super().__init__()
        self.names, self.learns_weights = tuple(heads), learns_weights
        # torch reads conv layers' outputs as [examples, classes, height, width]
        self.dim = 1 if any(isinstance(head, nn.Conv2d) for head in heads.values()) else -1
        for (
            name,
            head,
        ) in heads.items():  # a prefix, for a task may be called type, as a method of every module is
            self.add_module(PREFIX + name, head)
        for name in heads if learns_weights else ():
            self.register_parameter(VARIANCE + name, nn.Parameter(torch.zeros(1)))

    def forward(self, *args: object, **kwargs: object) -> torch.Tensor:
        """Give the logits [examples, of all tasks], and behind them the logarithms of the variances."""
        found = [self.head(name)(*args, **kwargs) for name in self.names]
        if self.learns_weights:
            shape = list(found[0].shape)
            shape[self.dim] = 1
            found += [self.get_parameter(VARIANCE + name).expand(shape) for name in self.names]
        return torch.cat(found, dim=self.dim)

    def head(self, name: str) -> nn.Module:
        """Give the last layer of a task."""
        return self.get_submodule(PREFIX + name)

    def parameters_of(self, name: str) -> Sequence[nn.Parameter]:
        """List what belongs to one task alone."""
        variance = [self.get_parameter(VARIANCE + name)] if self.learns_weights else []
        return [*self.head(name).parameters(), *variance]

    def keys_of(self, name: str) -> dict[str, str]:
        """Name the entries of this module's state that are of a task, each with what it is called in the layer."""
        return {f"{PREFIX}{name}.{key}": key for key in self.head(name).state_dict()}
