"""Projection between the layers and the classifier of a speech model: it starts as the identity.

transformers' classifiers for speech reduce each position of a recording to ``classifier_proj_size`` values by a new
layer with random weights before they average all positions. With as many values as the layers have, and with the
identity, the classifier reads the average of the last layer, and nothing random lies between it and the checkpoint.
"""

from collections.abc import Collection
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedConfig

__all__ = ["has_projector", "init_projector", "is_projector", "widen_projector"]

SIZE_FIELD = "classifier_proj_size"
NAMES = ("projector.weight", "projector.bias")
CLASSIFIERS = ("ForAudioClassification", "ForSequenceClassification")
"""Ends of the names of the classes that have a projection."""


def has_projector(config: Any) -> bool:
    """Return whether a model has a projection before its classifier.

    Args:
        config: Config of the model; None for a model without one.
    """
    return hasattr(config, SIZE_FIELD)


def is_projector(model: nn.Module, name: str) -> bool:
    """Return whether a parameter belongs to the projection before the classifier of a speech model, or its adapter.

    Args:
        model: Classifier.
        name: Name of the parameter.
    """
    return name.startswith("projector.") and has_projector(getattr(model, "config", None))


def widen_projector(config: PreTrainedConfig) -> None:
    """Let the projection of a speech model keep the size of its layers, in place, unless the checkpoint has trained it.

    Args:
        config: Config of a checkpoint, which names the classes that it was saved from.
    """
    if has_projector(config) and not _is_trained(config):
        setattr(config, SIZE_FIELD, config.hidden_size)


def init_projector(model: Any, missing: Collection[str]) -> list[str]:
    """Set a projection that the checkpoint lacks to the identity.

    Args:
        model: Classifier with the checkpoint's weights.
        missing: Names of weights that the checkpoint lacks.

    Returns:
        Names of the weights that were set.
    """
    names = [name for name in NAMES if name in missing and is_projector(model, name)]
    if names:
        with torch.no_grad():
            nn.init.eye_(model.projector.weight)
            nn.init.zeros_(model.projector.bias)
    return names


def _is_trained(config: PreTrainedConfig) -> bool:
    return any(name.endswith(CLASSIFIERS) for name in config.architectures or ())
