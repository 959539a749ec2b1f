"""Read a model's layer groups from its structure."""

import re
from collections.abc import Mapping, Sequence

from timm.models._manipulate import group_with_matcher
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from transformers import PreTrainedModel

from hf_finetune.models.adapters import adapter_kind, adapter_names, bare_names
from hf_finetune.plan.layers import HEAD, Layout, Parameter, assign_groups

__all__ = ["head_names", "read_layout"]

# Parameters that are neither weights of a layer nor biases: every recipe of the field spares them from decay.
SPARED = re.compile(
    r"(^|\.)(cls_token|mask_token|dist_token|distillation_token|reg_token|register_tokens|pos_embed)$"
)
SPARED_TABLES = re.compile(r"(^|\.)(position_embeddings|relative_position_bias_table)$")
# LoRA's two matrices. What else an adapter has are factors, which do nothing at 1: decay would pull them to 0.
FACTOR = re.compile(r"\.lora_[AB]\.")
EMBEDDING = re.compile(r"embed|cls_token|register_tokens")


def read_layout(model: PreTrainedModel) -> Layout:
    """Describe a classifier for the plan.

    The layer groups come from timm's ``group_matcher``, else from the trunk of repeated layers that a
    transformers model holds in a ``ModuleList``, else from the backbone's children in order.

    An adapter changes no group: its weights belong to the group of the layer that they are in.

    Args:
        model: Any classifier that transformers builds; a model on the meta device will do.
    """
    bare = bare_names(model)
    names = list(dict.fromkeys(bare.values()))
    head = list(dict.fromkeys(bare[name] for name in head_names(model)))
    timm_model = getattr(model, "timm_model", None)
    if timm_model is not None and hasattr(timm_model, "group_matcher"):
        groups, titles = _timm_groups(timm_model, names, head)
        source = "timm's group_matcher"
    else:
        layers, source = _trunk(model)
        early = [name for name in names if EMBEDDING.search(name) and not _inside(name, layers)]
        groups, titles = assign_groups(names, layers, head, early)
    norms = {name for name, module in model.named_modules() if _is_norm(module)}
    spared, adapters = _no_weight_decay(model, names), adapter_names(model)
    parameters = []
    for name, parameter in model.named_parameters():
        is_norm, is_adapter = name.rpartition(".")[0] in norms, name in adapters
        decays = parameter.ndim > 1 and not is_norm and bare[name] not in spared
        if is_adapter:
            decays = bool(FACTOR.search(name))
        parameters.append(Parameter(name, parameter.numel(), groups[bare[name]], is_norm, decays, is_adapter))
    batch_norms = _batch_norms(model, groups, len(titles) - 1)
    return Layout(tuple(parameters), titles, batch_norms, source, adapter_kind(model))


def head_names(model: PreTrainedModel) -> list[str]:
    """Name the parameters of the classification head: what a new task needs anew."""
    timm_model = getattr(model, "timm_model", None)
    if timm_model is not None:
        found = timm_model.get_classifier()
        parts = found if isinstance(found, (list, tuple)) else [found]
        owned = {
            id(parameter) for part in parts if isinstance(part, nn.Module) for parameter in part.parameters()
        }
    else:
        backbone = {id(parameter) for parameter in model.base_model.parameters()}
        owned = {id(parameter) for parameter in model.parameters()} - backbone
    return [name for name, parameter in model.named_parameters() if id(parameter) in owned]


def _timm_groups(
    timm_model: nn.Module, names: Sequence[str], head: Sequence[str]
) -> tuple[Mapping[str, int], tuple[str, ...]]:
    prefix = "timm_model."
    matcher = timm_model.group_matcher(coarse=False)  # type: ignore[operator]
    by_layer = group_with_matcher(((name.removeprefix(prefix), None) for name in names), matcher)
    in_head = set(head)
    groups: dict[str, int] = {}
    titles: list[str] = []
    for _, members in sorted(by_layer.items()):
        backbone = [name for member in members if (name := prefix + member) not in in_head]
        if backbone:
            groups |= dict.fromkeys(backbone, len(titles))
            titles.append(_common_module([name.removeprefix(prefix) for name in backbone]))
    groups |= dict.fromkeys(head, len(titles))
    return {name: groups[name] for name in names}, (*_distinct(titles), HEAD)


def _common_module(names: Sequence[str]) -> str:
    """Name the module that holds the parameters of a layer group; of several modules, the first."""
    first = names[0].split(".")[0]
    split = [name.split(".")[:-1] for name in names if name.split(".")[0] == first]
    common = []
    for words in zip(*split, strict=False):
        if len(set(words)) > 1:
            break
        common.append(words[0])
    return ".".join(common) or "input"


def _distinct(titles: Sequence[str]) -> list[str]:
    seen: dict[str, int] = {}
    for title in titles:
        seen[title] = seen.get(title, 0) + 1
    count: dict[str, int] = {}
    distinct = []
    for title in titles:
        count[title] = count.get(title, 0) + 1
        distinct.append(title if seen[title] == 1 else f"{title}#{count[title]}")
    return distinct


def _trunk(model: PreTrainedModel) -> tuple[list[str], str]:
    """Find the repeated layers of the backbone. A stage that is itself a list of blocks counts by its blocks."""
    base = model.base_model
    prefix = "" if base is model else f"{model.base_model_prefix}."
    lists = {
        name: module
        for name, module in base.named_modules()
        if isinstance(module, nn.ModuleList) and len(module)
    }
    outer = {
        name: module for name, module in lists.items() if not any(_inside(name, [other]) for other in lists)
    }
    if not outer:
        children = [
            f"{prefix}{name}"
            for name, child in base.named_children()
            if any(True for _ in child.parameters())
        ]
        return children, "the backbone's children in order (no list of layers found)"
    name, trunk = max(outer.items(), key=lambda item: _size(item[1]))
    layers = []
    for index, layer in enumerate(trunk):
        title = f"{prefix}{name}.{index}"
        blocks = _blocks(layer)
        layers += [f"{title}.{block}" for block in blocks] if blocks else [title]
    return layers, f"the layers of {prefix}{name}"


def _blocks(layer: nn.Module) -> list[str]:
    """List the blocks of a stage: a list of like modules that holds most of the stage's parameters."""
    for name, module in layer.named_children():
        if not isinstance(module, (nn.ModuleList, nn.Sequential)) or 2 * _size(module) <= _size(layer):
            continue
        kinds = {type(block) for block in module}
        if len(kinds) == 1 and all(any(True for _ in block.children()) for block in module):
            return [f"{name}.{index}" for index in range(len(module))]
    return []


def _inside(name: str, modules: Sequence[str]) -> bool:
    return any(name.startswith(f"{module}.") for module in modules)


def _size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _is_norm(module: nn.Module) -> bool:
    """Tell a normalisation layer by its name; timm's holds its activation as a child."""
    return "Norm" in type(module).__name__ and any(True for _ in module.parameters(recurse=False))


def _no_weight_decay(model: PreTrainedModel, names: Sequence[str]) -> set[str]:
    timm_model = getattr(model, "timm_model", None)
    listed = timm_model.no_weight_decay() if timm_model and hasattr(timm_model, "no_weight_decay") else ()
    spared = {f"timm_model.{name}" for name in listed}
    return spared | {name for name in names if SPARED.search(name) or SPARED_TABLES.search(name)}


def _batch_norms(model: PreTrainedModel, groups: Mapping[str, int], head: int) -> tuple[tuple[str, int], ...]:
    found = []
    for name, module in model.named_modules():
        if isinstance(module, _BatchNorm):
            owned = [f"{name}.{parameter}" for parameter, _ in module.named_parameters()]
            found.append((name, groups[owned[0]] if owned else head))
    return tuple(found)
