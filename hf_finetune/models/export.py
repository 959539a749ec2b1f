"""Save a finished model so that plain transformers and plain timm load it."""

import json
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, TimmWrapperConfig

from hf_finetune.errors import InputError, Problem

__all__ = ["export_model", "set_image_size"]


def export_model(model: PreTrainedModel, processor: Any, folder: Path) -> None:
    """Write weights, config and processor in the Hub's format.

    Args:
        model: The classifier, on any device.
        processor: Its image processor or tokenizer.
        folder: Where to; it is created.
    """
    is_timm = isinstance(model.config, TimmWrapperConfig)
    if is_timm:
        # As saved by the wrapper, names begin with "timm_model."; timm reads them without, transformers both.
        weights = {name.removeprefix("timm_model."): value for name, value in model.state_dict().items()}
        model.save_pretrained(folder, state_dict=weights, save_original_format=False)
    else:
        model.save_pretrained(folder)
    processor.save_pretrained(folder)
    if is_timm:
        _mend_timm_config(folder / "config.json")
    for file in folder.iterdir():
        file.chmod(0o644)


def set_image_size(processor: Any, config: Any, size: int | None, crop_pct: float | None = None) -> None:
    """Set the images that processor and config ask for; None keeps what the checkpoint says.

    Args:
        processor: An image processor, changed in place.
        config: The model's config, changed in place.
        size: Height and width in pixels.
        crop_pct: Fraction of the resized image's shorter edge that is kept, in (0, 1].
    Raises:
        InputError: If the processor never cuts an image, and is given a ``crop_pct``.
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
    # It reads the size when it is made, and only then.
    processor.__init__(pretrained_cfg=wanted, architecture=config.architecture)


def _set_size(processor: Any, size: int | None, crop_pct: float | None) -> None:
    resized, crop = dict(processor.size), dict(getattr(processor, "crop_size", None) or {})
    edge = resized.get("shortest_edge")
    if edge is None:
        if crop_pct is not None:
            rule = "must be left out for a checkpoint that takes the whole image"
            raise InputError(Problem("data.crop_pct", rule, f"{crop_pct:g}"))
        processor.size = {"height": size, "width": size}
        return
    old = crop["height"] if crop else edge
    new = size or old
    if hasattr(processor, "crop_pct"):  # ConvNeXt and PoolFormer enlarge the shorter edge by it themselves
        processor.size = {"shortest_edge": new}
        processor.crop_pct = crop_pct or processor.crop_pct
    else:
        processor.size = {"shortest_edge": int(new / crop_pct) if crop_pct else round(edge * new / old)}
    if crop:
        processor.crop_size = {"height": new, "width": new}


def _mend_timm_config(path: Path) -> None:
    """Write a config that both libraries load.

    transformers 5.23 saves ``model_args: null``, which timm 1.0.31 unpacks and fails on; without the entry both
    take their default.
    """
    config = json.loads(path.read_text(encoding="utf-8"))
    if config.get("model_args") is None:
        config.pop("model_args", None)
    path.write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
