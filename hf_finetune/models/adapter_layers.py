"""Selection of the backbone layers that get an adapter."""

import re
from collections.abc import Collection, Mapping, Sequence

from timm.layers import Conv2dSame
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from hf_finetune.errors import InputError, Problem, short_repr, suggestion
from hf_finetune.fields.patterns import PatternError, find_matches

__all__ = ["describe_layers", "has_suffix", "target_layers"]

LOCATION = "model.adapter.target"
"""Location of the setting in a recipe, for problems."""

# Layer types that can have an adapter. Exact types only: a subclass may transform its weight before use (weight
# standardization), or its parent may read the weight directly (in nn.MultiheadAttention). A merged weight would then
# compute something else.
LINEAR = (nn.Linear, Conv1D)
CONVOLUTION = (nn.Conv2d, Conv2dSame)


def target_layers(
    model: PreTrainedModel, head: Collection[str], kind: str, target: Sequence[str]
) -> list[str]:
    """Return the names of the backbone layers that get an adapter, in the model's order.

    Args:
        model: The classifier.
        head: Names of the head's parameters.
        kind: ``lora``, ``dora`` or ``ia3``.
        target: ``auto``, ``all-linear``, or a list of layer-name suffixes and ``/regular expressions/``.

    Raises:
        InputError: If an entry of ``target`` matches no layer, or is an invalid regular expression.
    """
    layers = {
        name: module
        for name, module in model.named_modules()
        if _takes_adapter(module) and f"{name}.weight" not in head and not _is_tied(model, module)
    }
    linear = [name for name, module in layers.items() if type(module) in LINEAR]
    if list(target) == ["auto"]:
        selected = _default_layers(model.config.model_type, kind, layers, linear)
    elif list(target) == ["all-linear"]:
        selected = linear
    else:
        selected = _layers_by_suffix_or_pattern(layers, target)
    if not selected:
        repair = f"Its layers end in {', '.join(_suffixes(layers))}." if layers else ""
        rule = "must match at least one linear or plain convolutional layer of the backbone"
        raise InputError(Problem(LOCATION, rule, ", ".join(map(repr, target)), repair))
    return selected


def _is_tied(model: PreTrainedModel, module: nn.Module) -> bool:
    """Return whether a module is the output layer of a model that generates, which shares weights with the input."""
    return bool(model.can_generate() and module is model.get_output_embeddings())


def has_suffix(name: str, suffixes: str | Collection[str]) -> bool:
    """Return whether a layer's name ends with one of some suffixes, as whole words.

    Args:
        name: Name of the layer.
        suffixes: Suffixes; a single string is a regular expression that must match the whole name.
    """
    if isinstance(suffixes, str):  # peft has a regular expression for some architectures
        return bool(re.fullmatch(suffixes, name))
    return any(f".{name}".endswith(f".{suffix}") for suffix in suffixes)


def describe_layers(model: nn.Module, layers: Sequence[str]) -> str:
    """Return a sentence with the number of adapted layers and the suffixes of their names.

    A second sentence counts the convolutions that cannot have an adapter, if any convolution has one.

    Args:
        model: The classifier, without an adapter.
        layers: Names of layers from ``target_layers``.
    """
    kinds = _suffixes(layers)
    text = f"{len(layers)} layers: {', '.join(kinds[:6])}{', ...' if len(kinds) > 6 else ''}."
    convolutions = [module for module in model.modules() if type(module) in CONVOLUTION]
    unsupported = sum(not _takes_adapter(module) for module in convolutions)
    if unsupported and any(type(model.get_submodule(name)) in CONVOLUTION for name in layers):
        text += f" {unsupported} grouped or dilated convolutions have none."
    return text


def _takes_adapter(module: nn.Module) -> bool:
    """Return whether an adapter of this layer can be merged.

    peft 0.21 cannot merge the adapter of a grouped convolution, and its adapters ignore the layer's dilation.
    """
    if type(module) in CONVOLUTION:
        return (module.groups, module.dilation, module.padding_mode) == (1, (1, 1), "zeros")
    return type(module) in LINEAR


def _default_layers(
    model_type: str, kind: str, layers: Mapping[str, nn.Module], linear: list[str]
) -> list[str]:
    """Return peft's targets for the architecture; else the linear layers, or all layers if convolutions are larger."""
    from peft.utils import constants

    known = constants.TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING
    if kind == "ia3":
        known = constants.TRANSFORMERS_MODELS_TO_IA3_TARGET_MODULES_MAPPING
    if matched := [name for name in layers if has_suffix(name, known.get(model_type, ()))]:
        return matched
    sizes = {name: next(layer.parameters()).numel() for name, layer in layers.items()}
    return linear if 2 * sum(sizes[name] for name in linear) >= sum(sizes.values()) else list(layers)


def _layers_by_suffix_or_pattern(layers: Mapping[str, nn.Module], target: Sequence[str]) -> list[str]:
    selected: set[str] = set()
    problems = []
    for entry in target:
        matched: Collection[str] = [name for name in layers if has_suffix(name, [entry])]
        try:
            if len(entry) > 2 and entry.startswith("/") and entry.endswith("/"):
                matched = find_matches(entry[1:-1], layers)
        except PatternError as error:
            problems.append(Problem(LOCATION, str(error), short_repr(entry)))
            continue
        if not matched:
            rule = "must match at least one linear or plain convolutional layer of the backbone"
            repair = suggestion(entry.strip("/"), ["auto", "all-linear", *_suffixes(layers)])
            problems.append(Problem(LOCATION, rule, repr(entry), repair))
        selected.update(matched)
    if problems:
        raise InputError(problems)
    return [name for name in layers if name in selected]


def _suffixes(names: Collection[str]) -> list[str]:
    """Return the distinct suffixes of layer names, such as ``query`` or ``downsample.0``."""
    matches = (re.search(r"[^.]+(\.\d+)*$", name) for name in names)
    return list(dict.fromkeys(match[0] for match in matches if match))
