"""Check a checkpoint for nan and infinite weights."""

import json
from pathlib import Path

import torch
from transformers import PreTrainedModel

from hf_finetune.errors import InputError, Problem

__all__ = ["refuse_not_finite"]

# In the order in which transformers looks for them.
_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)


def refuse_not_finite(path: str, model: PreTrainedModel) -> None:
    """Raise an error for a checkpoint with nan or infinite weights, which training cannot repair.

    Args:
        path: Source of the weights: a Hub id, ``timm/NAME``, or a folder.
        model: Model with the checkpoint's weights.

    Raises:
        InputError: If a parameter is not finite, or a buffer is nan; a buffer may hold a mask of infinite values.
    """
    broken = {
        name: kind
        for tensors, kinds in ((model.named_parameters(), ("nan", "inf")), (model.named_buffers(), ("nan",)))
        for name, tensor in tensors
        if (kind := _not_finite(tensor)) in kinds
    }
    if not broken:
        return
    name, kind = next(iter(broken.items()))
    file = _file_of(path, name)
    value = f"{kind} in {name}" + (f" of {file}" if file else "")
    if len(broken) > 1:
        value += f", and such values in {len(broken) - 1:,} more"
    repair = "Download or copy it again, or use another checkpoint: training cannot repair it."
    raise InputError(Problem("model.path", "must hold finite weights", value, repair))


def _not_finite(tensor: torch.Tensor) -> str:
    """Return ``nan`` if a tensor contains nan, else ``inf`` if it contains an infinite value, else an empty string."""
    # fast path: the sum needs no extra memory, and is finite unless weights are broken or enormous
    if tensor.is_meta or not tensor.is_floating_point() or bool(torch.isfinite(tensor.detach().sum())):
        return ""
    if bool(torch.isnan(tensor).any()):
        return "nan"
    return "" if bool(torch.isfinite(tensor).all()) else "inf"


def _file_of(path: str, name: str) -> str:
    """Return the name of the file that contains a weight; empty if it is not known."""
    folder = Path(path).expanduser()
    file = next((file for file in _FILES if (folder / file).is_file()), "")
    if not file.endswith(".json"):
        return file
    places: dict[str, str] = json.loads((folder / file).read_text(encoding="utf-8"))["weight_map"]
    # names of backbone weights may be longer in the model than in the checkpoint
    return next((places[key] for key in places if f".{name}".endswith(f".{key}")), "")
