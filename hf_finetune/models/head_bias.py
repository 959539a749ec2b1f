"""Initial biases of a new head."""

from collections.abc import Collection

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel

__all__ = ["output_bias", "set_output_bias"]


def output_bias(model: PreTrainedModel, head: Collection[str]) -> torch.Tensor | None:
    """Return the biases that are added to the logits; None if the last layer of the head has none.

    Args:
        model: Classifier, with or without weights.
        head: Names of the head's parameters.
    """
    names = dict.fromkeys(name.rpartition(".")[0] for name in head)
    layers = [model.get_submodule(name) for name in names]
    linear = [layer for layer in layers if isinstance(layer, nn.Linear | nn.Conv2d)]
    if not linear or len(linear[-1].weight) != model.config.num_labels:
        return None
    return linear[-1].bias


def set_output_bias(model: PreTrainedModel, head: Collection[str], logits: np.ndarray) -> None:
    """Set the biases that are added to the logits.

    Args:
        model: Classifier, changed in place.
        head: Names of the head's parameters.
        logits: Logits of a constant prediction [classes].

    Raises:
        ValueError: If the last layer of the head has no biases.
    """
    bias = output_bias(model, head)
    if bias is None:
        raise ValueError("the last layer of the head has no biases")
    with torch.no_grad():
        bias.copy_(torch.as_tensor(logits))
