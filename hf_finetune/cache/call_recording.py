"""What a model calls, in which order, with what: recorded from one forward pass."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from accelerate.utils import recursively_apply
from torch import nn

__all__ = ["Calls", "Key", "TensorShape", "arguments", "evaluating", "output_of", "record_calls"]

Key = int | str


@dataclass(frozen=True)
class TensorShape:
    """Shape and element type of a tensor that was seen."""

    sizes: tuple[int, ...]
    dtype: torch.dtype


@dataclass
class Calls:
    """The calls of one forward pass.

    Attributes:
        events: Each call's begin (True) and end (False), by the module's name, in order.
        inputs: The arguments of each module's first call by position and name, tensors as their shapes.
        outputs: What each module gave at each of its calls, tensors as their shapes.
    """

    events: list[tuple[str, bool]] = field(default_factory=list)
    inputs: dict[str, dict[Key, Any]] = field(default_factory=dict)
    outputs: dict[str, list[Any]] = field(default_factory=dict)

    def before(self, boundary: str) -> list[str]:
        """List the outermost modules that had computed when a module was first called, none of which holds it."""
        finished: list[list[str]] = [[]]
        for name, begins in self.events:
            if not begins:
                finished.pop()
                finished[-1].append(name)
            elif name == boundary:
                return list(dict.fromkeys(name for level in finished for name in level))
            else:
                finished.append([])
        raise KeyError(boundary)

    def called_behind(self, name: str, boundary: str) -> bool:
        """Say whether a module is called again once the boundary has been."""
        start = self.events.index((boundary, True))
        return (name, True) in self.events[start + 1 :]


def record_calls(model: nn.Module, batch: Mapping[str, torch.Tensor]) -> Calls:
    """Compute once, in eval mode and without gradients, and write down the calls.

    Args:
        model: It is left as it was.
        batch: As the model takes it, without labels.
    """
    calls = Calls()
    handles = []

    def begins(name: str) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            calls.events.append((name, True))
            calls.inputs.setdefault(name, shapes_in(arguments(args, kwargs)))

        return hook

    def ends(name: str) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            calls.events.append((name, False))
            calls.outputs.setdefault(name, []).append(shapes_in(output))

        return hook

    for name, module in model.named_modules():
        if name:
            handles.append(module.register_forward_pre_hook(begins(name), with_kwargs=True))
            handles.append(module.register_forward_hook(ends(name)))
    try:
        with torch.no_grad(), evaluating(model):
            model(**batch)
    finally:
        for handle in handles:
            handle.remove()
    return calls


def arguments(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[Key, Any]:
    """Give the arguments of a call by position and name."""
    given: list[tuple[Key, Any]] = [*enumerate(args), *kwargs.items()]
    return dict(given)


def shapes_in(value: Any) -> Any:
    """Replace the tensors of a nested structure by their shapes."""
    return recursively_apply(lambda tensor: TensorShape(tuple(tensor.shape), tensor.dtype), value)


def output_of(model: nn.Module, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Give a classifier's logits [examples, labels]."""
    output = model(**batch)
    logits: torch.Tensor = output["logits"] if isinstance(output, dict) else output[0]
    return logits


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Set every module to eval mode, and put each back as it was."""
    before = [(module, module.training) for module in model.modules()]
    for module, _ in before:
        module.training = False
    try:
        yield
    finally:
        for module, training in before:
            module.training = training
