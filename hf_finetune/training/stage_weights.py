"""The weights that a stage leaves, under their in-memory names."""

from pathlib import Path

import torch
from safetensors.torch import load_model, save_file, save_model
from transformers import PreTrainedModel

from hf_finetune.files import replacing

__all__ = ["WEIGHTS", "load_weights", "save_weights"]

WEIGHTS = "model.safetensors"


def save_weights(model: PreTrainedModel, path: Path, weights: dict[str, torch.Tensor] | None = None) -> None:
    """Write a model's weights under their in-memory names; the file is whole or not there.

    Args:
        model: The model.
        path: The file.
        weights: Its weights, if they are divided among processes and were gathered.
    """
    with replacing(path) as temporary:
        if weights is None:
            save_model(model, str(temporary))
        else:
            save_file({name: value.clone() for name, value in weights.items()}, temporary)


def load_weights(model: PreTrainedModel, path: Path) -> None:
    """Read weights that ``save_weights`` wrote; every one must be there."""
    load_model(model, str(path), strict=True)
