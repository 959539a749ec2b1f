"""Save a finished model so that plain transformers and plain timm load it."""

import copy
import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

from peft import get_peft_model_state_dict
from safetensors.torch import save_file
from transformers import PreTrainedModel, TimmWrapperConfig

from hf_finetune.errors import InputError, Problem
from hf_finetune.models.adapters import ADAPTER, adapted_layers

__all__ = ["export_adapter", "export_model", "set_image_size"]


ADAPTER_CARD = """\
---
library_name: peft
base_model: {base_yaml}
---
An adapter, and the head that was trained with it. On top of the checkpoint:

```python
from peft import PeftModel
from transformers import {model_class}

labels = {labels}
model = {model_class}.from_pretrained(
    {base!r}, num_labels=len(labels), id2label=labels, ignore_mismatched_sizes=True
)
model = PeftModel.from_pretrained(model, "FOLDER OF THIS FILE")
```
"""


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
        _mend_timm_config(folder / "config.json", model)
    for file in folder.iterdir():
        file.chmod(0o644)


def export_adapter(
    model: PreTrainedModel, head: Collection[str], folder: Path, *, base: str, revision: str | None = None
) -> None:
    """Write the adapter and the head in peft's format, so that peft alone loads them on top of the checkpoint.

    peft has no task for images: the head is what it calls ``modules_to_save``, for texts too.

    Args:
        model: With its adapter, not merged.
        head: Names of the head's parameters.
        folder: Where to; it is created.
        base: The checkpoint that the adapter is for.
        revision: Its branch, tag or commit on the Hub.
    """
    # each layer by itself: peft 0.21 does not unload a larger module, such as RoBERTa's whole head, from IA3
    heads = sorted({name.rpartition(".")[0] for name in head})
    config = copy.copy(model.peft_config[ADAPTER])
    config.target_modules = sorted(
        adapted_layers(model)
    )  # peft shortens the names, and writes a set in any order
    config.modules_to_save = heads
    config.base_model_name_or_path, config.revision, config.inference_mode = base, revision, True
    weights = get_peft_model_state_dict(model, save_embedding_layers=False)
    weights |= {
        name: value
        for name, value in model.state_dict().items()
        if any(name.startswith(f"{module}.") for module in heads)
    }
    folder.mkdir(parents=True, exist_ok=True)
    save_file(
        {f"base_model.model.{name}": value.detach().cpu().contiguous() for name, value in weights.items()},
        folder / "adapter_model.safetensors",
        metadata={"format": "pt"},
    )
    config.save_pretrained(str(folder))
    labels = {int(index): name for index, name in model.config.id2label.items()}
    text = ADAPTER_CARD.format(
        base_yaml=json.dumps(base), base=base, model_class=type(model).__name__, labels=labels
    )
    (folder / "README.md").write_text(text, encoding="utf-8")
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


def _mend_timm_config(path: Path, model: PreTrainedModel) -> None:
    """Write a config that both libraries load, as the same model.

    transformers 5.23 saves ``model_args: null``, which timm 1.0.31 unpacks and fails on; without the entry both
    take their default. And timm makes a model for images of the config's size, where transformers makes it for those
    of the architecture: timm would then resize the table of positions, which the model does with each image anyway.
    """
    config = json.loads(path.read_text(encoding="utf-8"))
    arguments = dict(config.pop("model_args", None) or {})
    made_for = getattr(getattr(model.timm_model, "patch_embed", None), "img_size", None)
    if made_for and list(made_for) != list(config["pretrained_cfg"].get("input_size", [3, *made_for]))[1:]:
        arguments.setdefault("img_size", list(made_for))
    if arguments:
        config["model_args"] = arguments
    path.write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
