"""Save a finished model so that plain transformers and plain timm load it."""

import json
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, TimmWrapperConfig

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


def set_image_size(processor: Any, config: Any, size: int | None) -> None:
    """Set the height and width of the images that processor and config ask for; None keeps the checkpoint's.

    Args:
        processor: An image processor, changed in place.
        config: The model's config, changed in place.
        size: Pixels.
    """
    if size is None:
        return
    if isinstance(config, TimmWrapperConfig):
        config.pretrained_cfg = {**config.pretrained_cfg, "input_size": [3, size, size]}
        config.pretrained_cfg.pop("test_input_size", None)
        # It reads the size when it is made, and only then.
        processor.__init__(pretrained_cfg=config.pretrained_cfg, architecture=config.architecture)
        return
    crop = dict(getattr(processor, "crop_size", None) or {})
    wanted = dict(processor.size)
    if "shortest_edge" in wanted:
        old = crop.get("height", wanted["shortest_edge"])
        processor.size = {"shortest_edge": round(wanted["shortest_edge"] * size / old)}
    else:
        processor.size = {"height": size, "width": size}
    if crop:
        processor.crop_size = {"height": size, "width": size}


def _mend_timm_config(path: Path) -> None:
    """Write a config that both libraries load.

    transformers 5.23 saves ``model_args: null``, which timm 1.0.31 unpacks and fails on; without the entry both
    take their default.
    """
    config = json.loads(path.read_text(encoding="utf-8"))
    if config.get("model_args") is None:
        config.pop("model_args", None)
    path.write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
