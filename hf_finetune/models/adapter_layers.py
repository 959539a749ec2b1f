"""Which layers of a backbone get an adapter."""

import re
from collections.abc import Collection, Mapping, Sequence

from peft.utils.constants import (
    TRANSFORMERS_MODELS_TO_IA3_TARGET_MODULES_MAPPING,
    TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING,
)
from timm.layers import Conv2dSame
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from hf_finetune.errors import InputError, Problem, nearest
from hf_finetune.recipe.patterns import PatternError, matching
from hf_finetune.recipe.rules import shown

__all__ = ["describe_layers", "ends_with", "target_layers"]

PLACE = "model.adapter.target"

# Only layers that compute what their class says: a subclass that changes its weight first (weight standardisation)
# or hands it to its parent (that of nn.MultiheadAttention) is not what the merged weight computes.
LINEAR = (nn.Linear, Conv1D)
CONVOLUTION = (nn.Conv2d, Conv2dSame)


def target_layers(
    model: PreTrainedModel, head: Collection[str], kind: str, target: Sequence[str]
) -> list[str]:
    """Name the layers of the backbone that get an adapter, in the model's order.

    Args:
        model: The classifier.
        head: Names of the head's parameters.
        kind: ``lora``, ``dora`` or ``ia3``.
        target: ``auto``, ``all-linear``, or some of: the end of a layer's name, ``/regular expression/``.
    Raises:
        InputError: If one of them matches no layer.
    """
    layers = {
        name: module
        for name, module in model.named_modules()
        if _takes_adapter(module) and f"{name}.weight" not in head
    }
    linear = [name for name, module in layers.items() if type(module) in LINEAR]
    if list(target) == ["auto"]:
        found = _auto(model.config.model_type, kind, layers, linear)
    elif list(target) == ["all-linear"]:
        found = linear
    else:
        found = _named(layers, target)
    if not found:
        repair = f"Its layers end in {', '.join(_endings(layers))}." if layers else ""
        rule = "must match at least one linear or plain convolutional layer of the backbone"
        raise InputError(Problem(PLACE, rule, ", ".join(map(repr, target)), repair))
    return found


def ends_with(name: str, endings: str | Collection[str]) -> bool:
    """Tell whether a layer's name ends with one of these, whole words only; or fits a pattern, given as text."""
    if isinstance(endings, str):  # peft gives one for some architectures
        return bool(re.fullmatch(endings, name))
    return any(f".{name}".endswith(f".{ending}") for ending in endings)


def describe_layers(model: nn.Module, layers: Sequence[str]) -> str:
    """Say how many layers these are and how their names end, and what has to be left out beside them.

    Args:
        model: The classifier, without an adapter.
        layers: From ``target_layers``.
    """
    kinds = _endings(layers)
    text = f"{len(layers)} layers: {', '.join(kinds[:6])}{', ...' if len(kinds) > 6 else ''}."
    convolutions = [module for module in model.modules() if type(module) in CONVOLUTION]
    left_out = sum(not _takes_adapter(module) for module in convolutions)
    if left_out and any(type(model.get_submodule(name)) in CONVOLUTION for name in layers):
        text += f" {left_out} grouped or dilated convolutions have none."
    return text


def _takes_adapter(module: nn.Module) -> bool:
    """Tell a layer whose adapter can be merged: peft 0.21 merges no grouped convolution, and dilates no adapter."""
    if type(module) in CONVOLUTION:
        return (module.groups, module.dilation, module.padding_mode) == (1, (1, 1), "zeros")
    return type(module) in LINEAR


def _auto(model_type: str, kind: str, layers: Mapping[str, nn.Module], linear: list[str]) -> list[str]:
    """Choose as peft does for the architecture; else every linear layer, or every layer if convolutions weigh more."""
    known = (
        TRANSFORMERS_MODELS_TO_IA3_TARGET_MODULES_MAPPING
        if kind == "ia3"
        else TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING
    )
    if found := [name for name in layers if ends_with(name, known.get(model_type, ()))]:
        return found
    sizes = {name: next(layer.parameters()).numel() for name, layer in layers.items()}
    return linear if 2 * sum(sizes[name] for name in linear) >= sum(sizes.values()) else list(layers)


def _named(layers: Mapping[str, nn.Module], target: Sequence[str]) -> list[str]:
    found: set[str] = set()
    problems = []
    for entry in target:
        try:
            is_pattern = len(entry) > 2 and entry.startswith("/") and entry.endswith("/")
            matched = (
                matching(entry[1:-1], layers)
                if is_pattern
                else [name for name in layers if ends_with(name, [entry])]
            )
        except PatternError as error:
            problems.append(Problem(PLACE, str(error), shown(entry)))
            continue
        if not matched:
            rule = "must match at least one linear or plain convolutional layer of the backbone"
            repair = nearest(entry.strip("/"), ["auto", "all-linear", *_endings(layers)])
            problems.append(Problem(PLACE, rule, repr(entry), repair))
        found.update(matched)
    if problems:
        raise InputError(problems)
    return [name for name in layers if name in found]


def _endings(names: Collection[str]) -> list[str]:
    """List how the names end, each once: ``query``, ``downsample.0``."""
    found = (re.search(r"[^.]+(\.\d+)*$", name) for name in names)
    return list(dict.fromkeys(match[0] for match in found if match))
