"""Linear layers of a head: record their inputs, read and set their weights, and apply a temperature in them."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel

__all__ = ["fold_temperature_into_head", "nonlinear_reason", "read_linear", "record_inputs", "set_linear"]

TOLERANCE = 1e-4
"""Accepted rounding error of a logit, relative to the largest logit."""


@contextmanager
def record_inputs(layer: nn.Module) -> Iterator[list[torch.Tensor]]:
    """Yield a list that collects the inputs and outputs of a layer at each call within the block.

    Yields:
        List of tensors [examples, size]: the input of the first call, its output, the input of the second call, ...
    """
    recorded: list[torch.Tensor] = []

    def hook(module: nn.Module, args: tuple[Any, ...], output: torch.Tensor) -> None:
        recorded.extend(value.detach().flatten(1) for value in (args[0], output))

    handle = layer.register_forward_hook(hook)
    try:
        yield recorded
    finally:
        handle.remove()


def nonlinear_reason(model: nn.Module, head: Sequence[str], batch: Mapping[str, torch.Tensor]) -> str:
    """Return the reason why the logits are not a linear function of the head's input; empty if they are.

    Args:
        model: Model with weights; it is left in eval mode.
        head: Names of the head's parameters: a weight and a bias.
        batch: Inputs without labels.
    """
    name = head[0].rpartition(".")[0]
    layer = model.get_submodule(name)
    if not isinstance(layer, nn.Linear | nn.Conv2d):
        return f"{name} is a {type(layer).__name__}"
    with torch.no_grad(), record_inputs(layer) as recorded:
        logits = model.eval()(**batch).logits
    if len(recorded) != 2 or recorded[0].shape[1] != layer.weight[0].numel():
        return f"{name} receives more than one vector per example"
    same = recorded[1].shape == logits.shape and torch.equal(recorded[1], logits)
    return "" if same else f"the model changes the output of {name}"


def read_linear(layer: nn.Module) -> tuple[np.ndarray, np.ndarray]:
    """Return the weights [outputs, features] and biases [outputs] of a linear layer, in the form of ``set_linear``."""
    weight, bias = (parameter.detach().cpu().numpy().copy() for parameter in (layer.weight, layer.bias))  # type: ignore[operator]
    return weight.reshape(len(weight), -1), bias


def set_linear(layer: nn.Module, weight: np.ndarray, bias: np.ndarray) -> None:
    """Set the weights [outputs, features] and biases [outputs] of a layer.

    The layer is linear, or a convolution that is applied at a single position.
    """
    with torch.no_grad():
        for parameter, values in ((layer.weight, weight), (layer.bias, bias)):
            parameter.copy_(torch.as_tensor(values).view_as(parameter))  # type: ignore[operator,arg-type]


def fold_temperature_into_head(
    model: PreTrainedModel, head: Collection[str], temperature: float, batch: Mapping[str, torch.Tensor]
) -> bool:
    """Divide the weights of the layer that returns the logits by a temperature, if that scales the logits exactly.

    Args:
        model: Model on the CPU, changed in place if this succeeds.
        head: Names of the head's parameters.
        temperature: Number by which to divide the logits.
        batch: Inputs of an example, to verify the change of the logits.

    Returns:
        True if the logits are divided; False, with the weights unchanged, if no layer of the head is linear in them.
    """
    model.eval()
    names = dict.fromkeys(name.rpartition(".")[0] for name in head)
    layers = [model.get_submodule(name) for name in names]
    before = _logits(model, batch)
    for layer in reversed([module for module in layers if isinstance(module, nn.Linear | nn.Conv2d)]):
        originals = [weight.detach().clone() for weight in layer.parameters()]
        with torch.no_grad():
            for weight in layer.parameters():
                weight.div_(temperature)
        max_deviation = (_logits(model, batch) * temperature - before).abs().max()
        if max_deviation <= TOLERANCE * before.abs().max():
            return True
        with torch.no_grad():
            for weight, value in zip(layer.parameters(), originals, strict=True):
                weight.copy_(value)
    return False


def _logits(model: PreTrainedModel, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
    with torch.no_grad():
        return model(**batch).logits.double()
