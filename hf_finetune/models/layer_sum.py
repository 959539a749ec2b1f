"""Heads of speech models that read a weighted sum of all layers, or one layer of them.

transformers computes the sum with the softmax of one learned weight for each layer (``use_weighted_layer_sum``). One
layer is a sum in which all others have the weight 0, so that plain transformers loads both.
"""

import copy
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

import torch
from transformers import PreTrainedConfig

from hf_finetune.errors import InputError, Problem

__all__ = [
    "LAYER_WEIGHTS",
    "WEIGHTED",
    "feature_layer",
    "has_layer_sum",
    "init_layer_weights",
    "layer_fields",
    "layer_kinds",
    "reading",
    "selected_layer",
    "set_layers",
    "with_layer_sum",
]

FIELD = "use_weighted_layer_sum"
"""Config attribute of transformers."""
INDEX = "layer_sum_index"
"""Config attribute of this package: number of the only layer that the head reads."""
LAYER_WEIGHTS = "layer_weights"
"""Attribute of a model with the weights of the sum."""
LAST, WEIGHTED = "last", "weighted"
LAST_LAYER = "last layer"
"""Features of the last layer, which some architectures normalize after the last of their hidden states."""
CERTAIN = 1000.0
"""Weight of the only layer before the softmax: those of the others, exp(-1000), are 0."""


def has_layer_sum(config: Any) -> bool:
    """Return whether the architecture has a head that reads a sum of all layers.

    Args:
        config: Config of the model.
    """
    return hasattr(config, FIELD)


def set_layers(config: PreTrainedConfig, layers: Literal["last", "weighted"] | int | None) -> None:
    """Set which layers the head of a model reads, in its config.

    Args:
        config: Config of the model, changed in place.
        layers: ``last``, ``weighted``, or the number of a layer; None keeps what the checkpoint has.

    Raises:
        InputError: If the architecture has no sum of its layers, or no layer of this number.
    """
    if layers is None or (layers == LAST and not has_layer_sum(config)):
        return
    if not has_layer_sum(config):
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
    """Return the number of the only layer that the head reads; None if it reads the last one, or a sum of all.

    Args:
        config: Config of the model.
    """
    index: int | None = getattr(config, INDEX, None) if getattr(config, FIELD, False) else None
    return index


def layer_kinds(config: Any) -> tuple[str, ...]:
    """Return the names of the layers whose features a head can read, the input of the first one first.

    The name of the last one is ``last layer``; there are none without a layer sum.

    Args:
        config: Config of the model.
    """
    if not has_layer_sum(config):
        return ()
    return (*(f"layer {number}" for number in range(config.num_hidden_layers)), LAST_LAYER)


def feature_layer(config: Any) -> str | None:
    """Return the name of the layer that the head of a model reads; None if it reads a sum of several.

    Args:
        config: Config of the model.
    """
    number = selected_layer(config)
    if number is not None:
        return f"layer {number}"
    return None if getattr(config, FIELD, False) else LAST_LAYER


def layer_fields(kind: str) -> Mapping[str, Any]:
    """Return the fields of ``model.head`` with which the head reads a layer.

    Args:
        kind: Name from ``layer_kinds``.
    """
    return {"layers": LAST if kind == LAST_LAYER else int(kind.removeprefix("layer "))}


@torch.no_grad()
def init_layer_weights(model: Any, missing: Collection[str], saved: Any) -> list[str]:
    """Initialize the weights of the layers of a loaded model.

    Args:
        model: Model with the checkpoint's weights.
        missing: Names of weights that the checkpoint lacks.
        saved: Config in the checkpoint; None if it has none.

    Returns:
        Names of the missing weights that are not trained, because the head reads one layer.
    """
    if not hasattr(model, LAYER_WEIGHTS):
        return []
    index = selected_layer(model.config)
    if index is not None:
        model.layer_weights.zero_()
        model.layer_weights[index] = CERTAIN
        return [LAYER_WEIGHTS] if LAYER_WEIGHTS in missing else []
    if LAYER_WEIGHTS in missing or selected_layer(saved) is not None:
        model.layer_weights.zero_()  # all layers alike; not all architectures initialize them
    return []


def with_layer_sum(model: Any) -> Any:
    """Return a copy of a model whose head reads a sum of all layers.

    Args:
        model: Classifier with its weights.

    Raises:
        RuntimeError: If the model has weights that its architecture does not have, such as those of an adapter.
    """
    config = copy.deepcopy(model.config)
    config.__dict__.pop(INDEX, None)
    setattr(config, FIELD, True)
    summed = type(model)(config)
    weights = {**model.state_dict(), LAYER_WEIGHTS: torch.zeros(config.num_hidden_layers + 1)}
    summed.load_state_dict(weights)
    return summed.eval()


@contextmanager
def reading(model: Any, kind: str) -> Iterator[None]:
    """Let the head of a model with a layer sum read one layer within the block.

    Args:
        model: Model from ``with_layer_sum``.
        kind: Name from ``layer_kinds``.

    Yields:
        Nothing.
    """
    layers = layer_fields(kind)["layers"]
    setattr(model.config, FIELD, layers != LAST)
    with torch.no_grad():
        model.layer_weights.zero_()
        if layers != LAST:
            model.layer_weights[layers] = CERTAIN
    try:
        yield
    finally:
        setattr(model.config, FIELD, True)
