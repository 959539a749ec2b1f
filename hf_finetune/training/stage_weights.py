"""Save and load the weights of a finished stage, under the names of the model's state dict."""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_model, save_file, save_model
from transformers import PreTrainedModel

from hf_finetune.files import atomic_file

__all__ = ["WEIGHTS", "load_weights", "save_weights", "write_weights"]

WEIGHTS = "model.safetensors"


def save_weights(model: PreTrainedModel, path: Path, weights: dict[str, torch.Tensor] | None = None) -> None:
    """Write the weights of a model atomically, under the names of its state dict, not those of ``save_pretrained``.

    Args:
        model: Model whose weights to write.
        path: File to write.
        weights: Gathered weights of a model that is sharded over processes; None takes the model's own.
    """
    if weights is not None:
        write_weights(weights, path)
        return
    with atomic_file(path) as temporary:
        save_model(model, str(temporary))


def write_weights(weights: Mapping[str, torch.Tensor], path: Path) -> None:
    """Write weights atomically.

    Args:
        weights: Weights by their names in the state dict of a model.
        path: File to write.
    """
    with atomic_file(path) as temporary:
        save_file({name: value.clone() for name, value in weights.items()}, temporary)


def load_weights(model: PreTrainedModel, path: Path) -> None:
    """Load weights that ``save_weights`` wrote into a model; no weight may be missing.

    Args:
        model: Model of the same architecture, which is changed in place.
        path: File that ``save_weights`` wrote.
    """
    load_model(model, str(path), strict=True)
