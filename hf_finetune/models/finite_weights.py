"""Weights of a checkpoint that are no numbers."""

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
    """Refuse a checkpoint with weights that are nan or infinite: no learning rate would mend them.

    Args:
        path: Where the weights come from: a Hub id, ``timm/NAME``, or a folder.
        model: With the weights.

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
    repair = "Fetch or copy it again, or take another checkpoint: training cannot mend it."
    raise InputError(Problem("model.path", "must hold weights that are finite numbers", value, repair))


def _not_finite(tensor: torch.Tensor) -> str:
    """Return ``nan`` or ``inf`` if a tensor holds any, nan first, else nothing."""
    # the sum takes no further memory, and is finite for all but broken or enormous weights
    if tensor.is_meta or not tensor.is_floating_point() or bool(torch.isfinite(tensor.detach().sum())):
        return ""
    if bool(torch.isnan(tensor).any()):
        return "nan"
    return "" if bool(torch.isfinite(tensor).all()) else "inf"


def _file_of(path: str, name: str) -> str:
    """Return the file of a folder that holds a weight; nothing if that is not known."""
    folder = Path(path).expanduser()
    file = next((file for file in _FILES if (folder / file).is_file()), "")
    if not file.endswith(".json"):
        return file
    places: dict[str, str] = json.loads((folder / file).read_text(encoding="utf-8"))["weight_map"]
    # the model may call the weights of its backbone by a longer name than the checkpoint
    return next((places[key] for key in places if f".{name}".endswith(f".{key}")), "")
