"""Divide a finished model's logits by a temperature, in the head itself: plain transformers then gives the same."""

from collections.abc import Collection, Mapping

import torch
from torch import nn
from transformers import PreTrainedModel

__all__ = ["divide_head"]

TOLERANCE = 1e-4
"""Of the largest logit: what rounding may change."""


def divide_head(
    model: PreTrainedModel, head: Collection[str], temperature: float, batch: Mapping[str, torch.Tensor]
) -> bool:
    """Divide the weights of the layer that puts out the logits, if that divides the logits and nothing else.

    Args:
        model: On the CPU; it is changed in place, unless this fails.
        head: Names of the head's parameters.
        temperature: By which the logits are to be divided.
        batch: Inputs of an example, to try it with.

    Returns:
        Whether it is done. False if no layer of the head is linear in the logits: the model is as it was.
    """
    model.eval()
    names = dict.fromkeys(name.rpartition(".")[0] for name in head)
    layers = [model.get_submodule(name) for name in names]
    before = _logits(model, batch)
    for layer in reversed([each for each in layers if isinstance(each, nn.Linear | nn.Conv2d)]):
        kept = [weight.detach().clone() for weight in layer.parameters()]
        with torch.no_grad():
            for weight in layer.parameters():
                weight.div_(temperature)
        apart = (_logits(model, batch) * temperature - before).abs().max()
        if apart <= TOLERANCE * before.abs().max():
            return True
        with torch.no_grad():
            for weight, value in zip(layer.parameters(), kept, strict=True):
                weight.copy_(value)
    return False


def _logits(model: PreTrainedModel, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
    with torch.no_grad():
        return model(**batch).logits.double()
