"""No contender: saves one of timm's ViTs with random weights, in the form of timm checkpoints on the Hub."""

from typing import Any

import timm
import torch
from transformers import TimmWrapperConfig, TimmWrapperForImageClassification

__all__ = ["measure"]


def measure(work: dict[str, Any]) -> dict[str, Any]:
    """Save the checkpoint in ``work["checkpoint"]``."""
    torch.manual_seed(0)
    known = timm.get_pretrained_cfg(work["architecture"]).to_dict()
    size = work["image_size"]
    cfg = {key: known[key] for key in ("mean", "std", "interpolation", "crop_pct")}
    config = TimmWrapperConfig(
        architecture=work["architecture"],
        pretrained_cfg={**cfg, "input_size": [3, size, size]},
        model_args={},  # timm cannot read the value that transformers writes for None
        num_labels=2,
    )
    model = TimmWrapperForImageClassification(config)
    model.save_pretrained(work["checkpoint"])
    return {"parameters": sum(parameter.numel() for parameter in model.parameters())}
