"""Last layers of several tasks on one backbone: each example gets the logits of all tasks."""

from collections.abc import Mapping, Sequence

import torch
from torch import nn

__all__ = ["TaskHeads"]

HEAD_PREFIX, VARIANCE_PREFIX = "task_", "log_variance_"


class TaskHeads(nn.Module):
    """Replacement of a classifier's last layer that concatenates the logits of all tasks.

    Every head computes logits for every example, whatever its task. So all their weights have a gradient in every step
    and on every process, which is 0 where the loss ignores a task's logits.

    With learned weights, the log variance of each task follows the logits, the same for each example.

    Args:
        heads: Last layer of each task, by task name.
        learns_weights: Whether each task has a learned log variance.
    """

    def __init__(self, heads: Mapping[str, nn.Module], learns_weights: bool = False):
        super().__init__()
        self.names, self.learns_weights = tuple(heads), learns_weights
        # outputs of convolutions are [batch, classes, height, width]
        self.dim = 1 if any(isinstance(head, nn.Conv2d) for head in heads.values()) else -1
        # the prefix keeps a task's name, such as type, from clashing with a method of nn.Module
        for name, head in heads.items():
            self.add_module(HEAD_PREFIX + name, head)
        for name in heads if learns_weights else ():
            self.register_parameter(VARIANCE_PREFIX + name, nn.Parameter(torch.zeros(1)))

    def forward(self, *args: object, **kwargs: object) -> torch.Tensor:
        """Return the logits [batch, classes of all tasks], followed by the log variances if they are learned."""
        outputs = [self.head(name)(*args, **kwargs) for name in self.names]
        if self.learns_weights:
            shape = list(outputs[0].shape)
            shape[self.dim] = 1
            outputs += [self.get_parameter(VARIANCE_PREFIX + name).expand(shape) for name in self.names]
        return torch.cat(outputs, dim=self.dim)

    def head(self, name: str) -> nn.Module:
        """Return the last layer of a task."""
        return self.get_submodule(HEAD_PREFIX + name)

    def task_parameters(self, name: str) -> Sequence[nn.Parameter]:
        """Return the parameters that belong to one task alone."""
        variance = [self.get_parameter(VARIANCE_PREFIX + name)] if self.learns_weights else []
        return [*self.head(name).parameters(), *variance]

    def state_dict_keys(self, name: str) -> dict[str, str]:
        """Return the keys of a task in this module's state dict, mapped to their keys in the task's own layer."""
        return {f"{HEAD_PREFIX}{name}.{key}": key for key in self.head(name).state_dict()}
