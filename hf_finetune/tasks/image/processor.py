"""Image processors: the image size and crop fraction of a processor and its model's config."""

from typing import Any

from transformers import TimmWrapperConfig

from hf_finetune.errors import InputError, Problem

__all__ = ["set_image_size"]


def set_image_size(processor: Any, config: Any, size: int | None, crop_pct: float | None = None) -> None:
    """Set the image size and crop fraction of processor and config; None keeps the checkpoint's value.

    Args:
        processor: An image processor, changed in place.
        config: The model's config, changed in place.
        size: Height and width in pixels.
        crop_pct: Fraction of the resized image's shorter edge that is kept, in (0, 1].

    Raises:
        InputError: If ``crop_pct`` is set for a processor that never crops images.
    """
    if isinstance(config, TimmWrapperConfig):
        _set_timm_size(processor, config, size, crop_pct)
    elif size is not None or crop_pct is not None:
        _set_size(processor, size, crop_pct)


def _set_timm_size(
    processor: Any, config: TimmWrapperConfig, size: int | None, crop_pct: float | None
) -> None:
    wanted = dict(config.pretrained_cfg)
    if size is not None:
        wanted["input_size"] = [3, size, size]
        wanted.pop("test_input_size", None)
    if crop_pct is not None:
        wanted["crop_pct"] = crop_pct
        wanted.pop("test_crop_pct", None)
    config.pretrained_cfg = wanted
    # The processor reads the size in its constructor only.
    processor.__init__(pretrained_cfg=wanted, architecture=config.architecture)


def _set_size(processor: Any, size: int | None, crop_pct: float | None) -> None:
    resized, crop = dict(processor.size), dict(getattr(processor, "crop_size", None) or {})
    edge = resized.get("shortest_edge")
    if edge is None:
        if crop_pct is not None:
            rule = "must not be set for a checkpoint that resizes images without cropping"
            raise InputError(Problem("data.crop_pct", rule, f"{crop_pct:g}"))
        processor.size = {"height": size, "width": size}
        return
    old_edge = crop["height"] if crop else edge
    new_edge = size or old_edge
    if hasattr(processor, "crop_pct"):  # ConvNeXt and PoolFormer scale the shorter edge by it themselves
        processor.size = {"shortest_edge": new_edge}
        processor.crop_pct = crop_pct or processor.crop_pct
    else:
        processor.size = {
            "shortest_edge": int(new_edge / crop_pct) if crop_pct else round(edge * new_edge / old_edge)
        }
    if crop:
        processor.crop_size = {"height": new_edge, "width": new_edge}
