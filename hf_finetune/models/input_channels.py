"""Check of the number of input channels of an image model."""

from typing import Any

from transformers import PreTrainedConfig

from hf_finetune.errors import InputError, Problem

__all__ = ["check_channels", "image_channels"]

RGB = 3


def image_channels(config: PreTrainedConfig) -> int | None:
    """Return the number of channels of a model's input images; None if its config does not state it."""
    timm_size = (getattr(config, "pretrained_cfg", None) or {}).get("input_size")
    stated: list[Any] = [
        (getattr(config, "model_args", None) or {}).get("in_chans"),
        timm_size[0] if timm_size else None,
        getattr(config, "num_channels", None),
        getattr(getattr(config, "vision_config", None), "num_channels", None),
    ]
    return next((channels for channels in stated if isinstance(channels, int)), None)


def check_channels(config: PreTrainedConfig, path: str) -> None:
    """Check that a model takes RGB images: this package and transformers' pipelines convert every image to RGB.

    Args:
        config: Config of the model.
        path: Checkpoint, for the error message.

    Raises:
        InputError: If the model takes another number of channels than 3.
    """
    channels = image_channels(config)
    if channels not in (None, RGB):
        rule = "must be a model for images with 3 channels: all images are read as RGB, also by pipeline()"
        value = f"{path!r} with {channels} channel{'s' if channels != 1 else ''}"
        repair = (
            "Use a checkpoint for RGB images, or repeat or sum the weights of its first layer to 3 channels."
        )
        raise InputError(Problem("model.path", rule, value, repair))
