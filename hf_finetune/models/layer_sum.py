"""Heads of speech models that read a weighted sum of all layers, or one layer of them.

transformers computes the sum with the softmax of one learned weight for each layer (``use_weighted_layer_sum``). One
layer is a sum in which all others have the weight 0, so that plain transformers loads both.
"""

import copy
from collections.abc import Collection, Mapping
from typing import Any, Literal

import torch
from transformers import PreTrainedConfig

from hf_finetune.errors import InputError, Problem

__all__ = [
    "LAST",
    "LAYER_WEIGHTS",
    "WEIGHTED",
    "init_layer",
    "kind_of_head",
    "layer_names",
    "select_layer",
    "selected_layer",
    "set_layers",
    "with_layer_sum",
]

FIELD = "use_weighted_layer_sum"
"""Config attribute of transformers."""
INDEX = "layer_sum_index"
"""Config attribute of this package: number of the only layer that the head reads."""
LAYER_WEIGHTS = "layer_weights"
"""Name of the weights of the sum."""
LAST, WEIGHTED = "last", "weighted"
CERTAIN = 1000.0
"""Weight of the only layer before the softmax: those of the others, exp(-1000), are 0."""


def set_layers(config: PreTrainedConfig, layers: Literal["last", "weighted"] | int | None) -> None:
    """Set which layers the head of a model reads, in its config.

    Args:
        config: Config of the model, changed in place.
        layers: ``last``, ``weighted``, or the number of a layer; None keeps what the checkpoint has.

    Raises:
        InputError: If the architecture has no sum of its layers, or no layer of this number.
    """
    if layers is None or (layers == LAST and not hasattr(config, FIELD)):
        return
    if not hasattr(config, FIELD):
        rule = "must be last for an architecture without a weighted sum of its layers"
        name = getattr(config, "architecture", config.model_type)
        raise InputError(Problem("model.head.layers", rule, repr(layers), f"The architecture is {name}."))
    config.__dict__.pop(INDEX, None)
    setattr(config, FIELD, layers != LAST)
    if isinstance(layers, int):
        if layers > config.num_hidden_layers:
            rule = f"must be at most {config.num_hidden_layers}, the number of layers"
            raise InputError(Problem("model.head.layers", rule, str(layers)))
        setattr(config, INDEX, layers)


def selected_layer(config: Any) -> int | None:
    """Return the number of the only layer that the head reads; None if it reads the last one, or a sum of all."""
    index: int | None = getattr(config, INDEX, None) if getattr(config, FIELD, False) else None
    return index


def layer_names(config: Any) -> dict[str, int]:
    """Return the number of each layer by its name, from the input of the first one on; empty without a layer sum."""
    count = config.num_hidden_layers + 1 if hasattr(config, FIELD) else 0
    return {f"layer {number}": number for number in range(count)}


def kind_of_head(head: Mapping[str, Any], config: Any) -> str:
    """Return the name of the pooling or layer that a head reads.

    Args:
        head: Fields of the head in a recipe.
        config: Config of the model.
    """
    layers = layer_names(config)
    if not layers:
        return head.get("pool") or "own"
    number = head.get("layers")
    return f"layer {number}" if isinstance(number, int) else next(reversed(layers))


def init_layer(model: Any, missing: Collection[str]) -> list[str]:
    """Let the head of a loaded model read the layer that its config names.

    Args:
        model: Model with the checkpoint's weights.
        missing: Names of weights that the checkpoint lacks.

    Returns:
        Names of the missing weights that were set.
    """
    index = selected_layer(model.config)
    if index is None:
        return []
    select_layer(model, index)
    return [LAYER_WEIGHTS] if LAYER_WEIGHTS in missing else []


@torch.no_grad()
def select_layer(model: Any, index: int) -> None:
    """Let the head of a model with a layer sum read one layer."""
    model.layer_weights.zero_()
    model.layer_weights[index] = CERTAIN


def with_layer_sum(model: Any) -> Any:
    """Return a copy of a model whose head reads a sum of all layers."""
    config = copy.deepcopy(model.config)
    setattr(config, FIELD, True)
    summed = type(model)(config)
    weights = {**model.state_dict(), LAYER_WEIGHTS: torch.zeros(config.num_hidden_layers + 1)}
    summed.load_state_dict(weights)
    return summed.eval()
