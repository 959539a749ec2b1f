"""Export of a finished model, for plain transformers, timm and peft to load."""

import copy
import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from transformers import PreTrainedModel, TimmWrapperConfig

from hf_finetune.models.adapters import ADAPTER, adapted_layers

__all__ = ["export_adapter", "export_model"]


ADAPTER_CARD = """\
---
library_name: peft
base_model: {base_yaml}
---
This folder contains a peft adapter and the head that was trained with it. To load them on top of the checkpoint:

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
    """Write a model's weights, config and processor in the Hub's format.

    Args:
        model: The classifier, on any device.
        processor: Its image processor or tokenizer.
        folder: Output folder; it is created.
    """
    is_timm = isinstance(model.config, TimmWrapperConfig)
    if is_timm:
        # The wrapper adds "timm_model." to the names; timm reads only names without it, transformers both.
        weights = {name.removeprefix("timm_model."): value for name, value in model.state_dict().items()}
        model.save_pretrained(folder, state_dict=weights, save_original_format=False)
    else:
        model.save_pretrained(folder)
    processor.save_pretrained(folder)
    if is_timm:
        _fix_timm_config(folder / "config.json", model)
    for file in folder.iterdir():
        file.chmod(0o644)


def export_adapter(
    model: PreTrainedModel, head: Collection[str], folder: Path, *, base: str, revision: str | None = None
) -> None:
    """Write the adapter and the head in peft's format, so that plain peft loads them on top of the checkpoint.

    peft has no task type for images, so the head is stored as ``modules_to_save``, for texts too.

    Args:
        model: Classifier with an adapter that is not merged.
        head: Names of the head's parameters.
        folder: Output folder; it is created.
        base: Checkpoint that the adapter was trained on.
        revision: Branch, tag or commit of that checkpoint on the Hub.
    """
    from peft import get_peft_model_state_dict

    # single layers: peft 0.21 cannot unload a larger module, such as RoBERTa's whole head, from an IA3 model
    heads = sorted({name.rpartition(".")[0] for name in head})
    config = copy.copy(model.peft_config[ADAPTER])
    # peft shortens the names, and writes a set in arbitrary order
    config.target_modules = sorted(adapted_layers(model))
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


def _fix_timm_config(path: Path, model: PreTrainedModel) -> None:
    """Rewrite a saved config so that transformers and timm build the same model from it.

    transformers 5.23 saves ``model_args: null``, which timm 1.0.31 fails to unpack; without the entry both use their
    defaults. Also, timm builds a model for the config's image size, but transformers for the architecture's: timm
    would then resize the position embeddings, which the model does for each image anyway.
    """
    config = json.loads(path.read_text(encoding="utf-8"))
    arguments = dict(config.pop("model_args", None) or {})
    trained_size = getattr(getattr(model.timm_model, "patch_embed", None), "img_size", None)
    if (
        trained_size
        and list(trained_size) != list(config["pretrained_cfg"].get("input_size", [3, *trained_size]))[1:]
    ):
        arguments.setdefault("img_size", list(trained_size))
    if arguments:
        config["model_args"] = arguments
    path.write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
