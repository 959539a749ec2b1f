"""Apply a temperature in the head itself, so that plain transformers returns the scaled logits."""

from collections.abc import Collection, Mapping

import torch
from torch import nn
from transformers import PreTrainedModel

__all__ = ["divide_head"]

TOLERANCE = 1e-4
"""Accepted rounding error of a logit, relative to the largest logit."""


def divide_head(
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
        apart = (_logits(model, batch) * temperature - before).abs().max()
        if apart <= TOLERANCE * before.abs().max():
            return True
        with torch.no_grad():
            for weight, value in zip(layer.parameters(), originals, strict=True):
                weight.copy_(value)
    return False


def _logits(model: PreTrainedModel, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
    with torch.no_grad():
        return model(**batch).logits.double()
