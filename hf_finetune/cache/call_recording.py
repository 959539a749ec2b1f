"""Record the module calls of one forward pass: their order, and the shapes of their inputs and outputs."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from accelerate.utils import recursively_apply
from torch import nn

__all__ = [
    "Calls",
    "Key",
    "TensorShape",
    "arguments",
    "compute_logits",
    "eval_mode",
    "record_calls",
    "tensor_shapes",
]

Key = int | str
"""Position or name of an argument."""


@dataclass(frozen=True)
class TensorShape:
    """Shape and dtype of a recorded tensor."""

    sizes: tuple[int, ...]
    dtype: torch.dtype


@dataclass
class Calls:
    """Module calls of one forward pass.

    Attributes:
        events: Module name with True for the begin and False for the end of each call, in order.
        inputs: Arguments of the first call of each module by position or name, with shapes in place of tensors.
        outputs: Outputs of all calls of each module, with shapes in place of tensors.
    """

    events: list[tuple[str, bool]] = field(default_factory=list)
    inputs: dict[str, dict[Key, Any]] = field(default_factory=dict)
    outputs: dict[str, list[Any]] = field(default_factory=dict)

    def before(self, boundary: str) -> list[str]:
        """Return the outermost modules whose call had ended before ``boundary`` was first called.

        None of them contains ``boundary``. For a model that calls ``a(a.x, a.y)`` and then ``b(b.x, b.y)``, the modules
        before ``b.y`` are ``a`` and ``b.x``.

        Raises:
            KeyError: If ``boundary`` was not called.
        """
        finished: list[list[str]] = [[]]  # one list for each open call: the modules that ended inside it
        for name, begins in self.events:
            if not begins:
                finished.pop()
                finished[-1].append(name)
            elif name == boundary:
                return list(dict.fromkeys(name for level in finished for name in level))
            else:
                finished.append([])
        raise KeyError(boundary)

    def called_after(self, name: str, boundary: str) -> bool:
        """Return whether a module is called after the first call of ``boundary`` has begun."""
        start = self.events.index((boundary, True))
        return (name, True) in self.events[start + 1 :]


def record_calls(model: nn.Module, batch: Mapping[str, torch.Tensor]) -> Calls:
    """Run one forward pass in eval mode without gradients, and return its module calls.

    Args:
        model: Model to run; its state is restored.
        batch: Inputs of the model, without labels.
    """
    calls = Calls()
    handles = []

    def start_hook(name: str) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            calls.events.append((name, True))
            calls.inputs.setdefault(name, shapes_in(arguments(args, kwargs)))

        return hook

    def end_hook(name: str) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            calls.events.append((name, False))
            calls.outputs.setdefault(name, []).append(shapes_in(output))

        return hook

    for name, module in model.named_modules():
        if name:
            handles.append(module.register_forward_pre_hook(start_hook(name), with_kwargs=True))
            handles.append(module.register_forward_hook(end_hook(name)))
    try:
        with torch.no_grad(), eval_mode(model):
            model(**batch)
    finally:
        for handle in handles:
            handle.remove()
    return calls


def arguments(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[Key, Any]:
    """Return the arguments of a call, keyed by position or name."""
    items: list[tuple[Key, Any]] = [*enumerate(args), *kwargs.items()]
    return dict(items)


def shapes_in(value: Any) -> Any:
    """Return a nested structure with a ``TensorShape`` in place of each tensor."""
    return recursively_apply(lambda tensor: TensorShape(tuple(tensor.shape), tensor.dtype), value)


def tensor_shapes(value: Any) -> list[TensorShape]:
    """Return the shapes in a nested structure of recorded values, in order.

    Args:
        value: Structure from ``shapes_in``.
    """
    shapes: list[TensorShape] = []
    recursively_apply(shapes.append, value, test_type=lambda item: isinstance(item, TensorShape))
    return shapes


def compute_logits(model: nn.Module, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Return the logits of a classifier, ``[batch, labels]``."""
    output = model(**batch)
    logits: torch.Tensor = output["logits"] if isinstance(output, dict) else output[0]
    return logits


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Set every module to eval mode within the block, and restore the mode of each afterwards."""
    before = [(module, module.training) for module in model.modules()]
    for module, _ in before:
        module.training = False
    try:
        yield
    finally:
        for module, training in before:
            module.training = training
