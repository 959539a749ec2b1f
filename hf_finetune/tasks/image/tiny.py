"""Tiny image classifier with random weights."""

from pathlib import Path

import timm
import torch
from transformers import TimmWrapperConfig, TimmWrapperForImageClassification

__all__ = ["save_tiny_resnet"]


def save_tiny_resnet(folder: Path) -> None:
    """Write a tiny ResNet of timm for images of 32 x 32 pixels.

    Args:
        folder: Folder to write to.
    """
    known = timm.get_pretrained_cfg("test_resnet").to_dict()
    fields = {key: known[key] for key in ("mean", "std", "interpolation", "crop_pct")}
    fields["input_size"] = [3, 32, 32]
    config = TimmWrapperConfig(architecture="test_resnet", pretrained_cfg=fields, num_labels=2, model_args={})
    model = TimmWrapperForImageClassification(config)
    # timm's default initialization yields features, and so gradients, as small as rounding errors
    for module in model.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight)
        elif isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
    model.eval().save_pretrained(folder)
