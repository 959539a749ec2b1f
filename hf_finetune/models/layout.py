"""Read the layout of a model, its parameters and layer groups, from its structure."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence

from timm.models._manipulate import group_with_matcher
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from transformers import PreTrainedModel

from hf_finetune.models.adapters import adapter_kind, adapter_names, names_without_adapter
from hf_finetune.models.computed_weights import computed_weights
from hf_finetune.models.find_head import find_head, find_timm_model, head_names
from hf_finetune.planning.layers import HEAD, Layout, Parameter, assign_groups

__all__ = ["head_names", "read_layout"]

# Parameters that are neither layer weights nor biases; by convention they have no weight decay.
NO_DECAY_NAMES = re.compile(
    r"(^|\.)(cls_token|mask_token|dist_token|distillation_token|reg_token|register_tokens|pos_embed)$"
)
NO_DECAY_TABLES = re.compile(r"(^|\.)(position_embeddings|relative_position_bias_table)$")
# A list of layers belongs to the trunk if it has at least this fraction of the largest list's parameters.
TRUNK_FRACTION = 0.25
# LoRA's two matrices. All other adapter parameters are factors, neutral at 1, which decay would pull to 0.
LORA_MATRIX = re.compile(r"\.lora_[AB]\.")
EMBEDDING = re.compile(r"embed|cls_token|register_tokens")


def read_layout(model: nn.Module) -> Layout:
    """Return the layout of a classifier: its parameters and layer groups, as the plan needs them.

    The layer groups come from timm's ``group_matcher``; else from the ``ModuleList``s of repeated layers in a
    transformers model; else from the backbone's modules in order, which ``Layout.note`` then mentions.

    An adapter does not change the groups: its weights belong to the group of their layer.

    Args:
        model: A classifier of transformers or timm, or any other module; may be on the meta device.

    Returns:
        Layout with the ``parameters`` in the model's order, each with its name, size and group index, and with the
        ``groups``: the names of the layer groups, input first, and then ``head``. Weights that only depend on the
        config, such as the positions of a Whisper encoder, are left out.

    Example:
        >>> from hf_finetune import read_layout
        >>> layout = read_layout(model)
        >>> layout.groups
        ('input', 'bert.encoder.layer.0', 'bert.encoder.layer.1', 'head')
        >>> [parameter.name for parameter in layout.parameters if parameter.group == 3]
        ['classifier.weight', 'classifier.bias']
    """
    bare = names_without_adapter(model)
    names = list(dict.fromkeys(bare.values()))
    head_parameters, is_known = find_head(model)
    head = list(dict.fromkeys(bare[name] for name in head_parameters))
    timm_model, prefix = find_timm_model(model)
    if timm_model is not None and hasattr(timm_model, "group_matcher"):
        groups, titles = _timm_groups(timm_model, prefix, names, head)
        source, in_order = "timm's group_matcher", False
    else:
        layers, source, in_order = _find_layers(model)
        early = [name for name in names if EMBEDDING.search(name) and not _is_inside(name, layers)]
        groups, titles = assign_groups(names, layers, head, early)
        titles = (*_unique_titles(_group_titles(titles[:-1], groups, prefix)), HEAD)
    norms = {name for name, module in model.named_modules() if _is_norm(module)}
    no_decay, adapters = _no_weight_decay(model, names), adapter_names(model)
    parameters, computed = [], computed_weights(getattr(model, "config", None))
    for name, parameter in model.named_parameters():
        if bare[name] in computed:
            continue
        is_norm, is_adapter = name.rpartition(".")[0] in norms, name in adapters
        decays = parameter.ndim > 1 and not is_norm and bare[name] not in no_decay
        if is_adapter:
            decays = bool(LORA_MATRIX.search(name))
        parameters.append(Parameter(name, parameter.numel(), groups[bare[name]], is_norm, decays, is_adapter))
    norm_groups = _batch_norms(model, groups, len(titles) - 1)
    note = _note(model, in_order, head, is_known)
    return Layout(tuple(parameters), titles, norm_groups, source, note, adapter_kind(model))


def _note(model: nn.Module, in_order: bool, head: Sequence[str], is_known: bool) -> str:
    """Return a note about guesses for an unknown architecture; empty if there were none."""
    guesses = []
    if in_order:
        guesses.append("its layer groups are its modules in order")
    if not is_known:
        head_module = head[0].rpartition(".")[0] if head else "nothing"
        guesses.append(f"its head is assumed to be {head_module}")
    inner = find_timm_model(model)[0] or model
    return f"{type(inner).__name__} is not a known architecture: {', and '.join(guesses)}." if guesses else ""


def _timm_groups(
    timm_model: nn.Module, prefix: str, names: Sequence[str], head: Sequence[str]
) -> tuple[Mapping[str, int], tuple[str, ...]]:
    matcher = timm_model.group_matcher(coarse=False)  # type: ignore[operator]
    by_layer = group_with_matcher(((name.removeprefix(prefix), None) for name in names), matcher)
    in_head = set(head)
    groups: dict[str, int] = {}
    titles: list[str] = []
    for _, members in sorted(by_layer.items()):
        backbone = [name for member in members if (name := prefix + member) not in in_head]
        if backbone:
            groups |= dict.fromkeys(backbone, len(titles))
            short = [name.removeprefix(prefix) for name in backbone]
            title = _common_module(short)
            # a norm or projection that timm keeps in its head before the classifier is not part of the head
            titles.append(title if title != HEAD else short[0].rpartition(".")[0])
    groups |= dict.fromkeys(head, len(titles))
    return {name: groups[name] for name in names}, (*_unique_titles(titles), HEAD)


def _common_module(names: Sequence[str]) -> str:
    """Return the name of the module that holds the parameters of a layer group; of several modules, the first."""
    first = names[0].split(".")[0]
    split = [name.split(".")[:-1] for name in names if name.split(".")[0] == first]
    common = []
    for words in zip(*split, strict=False):
        if len(set(words)) > 1:
            break
        common.append(words[0])
    return ".".join(common) or "input"


def _unique_titles(titles: Sequence[str]) -> list[str]:
    total, used = Counter(titles), Counter[str]()
    distinct = []
    for title in titles:
        used[title] += 1
        distinct.append(title if total[title] == 1 and title != HEAD else f"{title}#{used[title]}")
    return distinct


def _find_layers(model: nn.Module) -> tuple[list[str], str, bool]:
    """Return the repeated layers of the backbone.

    A stage that is itself a list of blocks is replaced by its blocks. Of several lists, such as those of an encoder
    and a decoder, all large ones count, in the model's order.

    Returns:
        Names of the layers, a description of their source, and whether they are just the backbone's modules in order.
    """
    base = model.base_model if isinstance(model, PreTrainedModel) else model
    prefix = next((f"{name}." for name, module in model.named_modules() if module is base and name), "")
    lists = {
        name: module
        for name, module in base.named_modules()
        if isinstance(module, nn.ModuleList) and len(module)
    }
    outer = {
        name: module
        for name, module in lists.items()
        if not any(_is_inside(name, [parent]) for parent in lists)
    }
    if not outer:
        layers = [title for name, child in base.named_children() for title in _expand_list(name, child)]
        source = "the backbone's modules in order (no list of layers found)"
        return [f"{prefix}{layer}" for layer in layers], source, True
    largest = max(_size(module) for module in outer.values())
    large = {name: module for name, module in outer.items() if _size(module) >= TRUNK_FRACTION * largest}
    layers = [title for name, trunk in large.items() for title in _expand_list(name, trunk)]
    if len({(name.rpartition(".")[0], len(trunk)) for name, trunk in large.items()}) < len(large):
        large, layers = _interleave(outer, large)
    source = f"the layers of {' and '.join(prefix + name for name in large)}"
    return [f"{prefix}{layer}" for layer in layers], source, False


def _interleave(
    outer: Mapping[str, nn.ModuleList], large: Mapping[str, nn.ModuleList]
) -> tuple[dict[str, nn.ModuleList], list[str]]:
    """Return parallel lists, and their layers interleaved: XLM keeps one list for each kind of sublayer."""
    parent, length = next((name.rpartition(".")[0], len(trunk)) for name, trunk in large.items())
    parallel = {
        name: trunk
        for name, trunk in outer.items()
        if name.rpartition(".")[0] == parent and len(trunk) == length
    }
    return parallel, [f"{name}.{index}" for index in range(length) for name in parallel]


def _group_titles(titles: Sequence[str], groups: Mapping[str, int], prefix: str) -> list[str]:
    """Return the names of the layer groups; a norm or projection before the classifier has its own name."""
    short = [title.removeprefix(prefix) for title in titles]
    for name, group in groups.items():
        if group < len(short) and short[group] == HEAD:
            short[group] = name.removeprefix(prefix).rpartition(".")[0]
    return short


def _expand_list(name: str, module: nn.Module) -> list[str]:
    """Return the layer names of a list, each list of blocks replaced by its blocks; for another module its name."""
    if not any(True for _ in module.parameters()):
        return []
    is_list = isinstance(module, nn.ModuleList) or (
        isinstance(module, nn.Sequential) and all(any(True for _ in layer.children()) for layer in module)
    )
    if not is_list:
        return [name]
    layers = []
    for index, layer in module.named_children():
        blocks = [f"{name}.{index}.{block}" for block in _blocks(layer)]
        layers += blocks or [f"{name}.{index}"]
    return layers


def _blocks(layer: nn.Module) -> list[str]:
    """Return the blocks of a stage: a list of modules of one class that holds most of the stage's parameters."""
    for name, module in layer.named_children():
        if not isinstance(module, (nn.ModuleList, nn.Sequential)) or 2 * _size(module) <= _size(layer):
            continue
        kinds = {type(block) for block in module}
        if len(kinds) == 1 and all(any(True for _ in block.children()) for block in module):
            return [f"{name}.{index}" for index in range(len(module))]
    return []


def _is_inside(name: str, modules: Sequence[str]) -> bool:
    return any(name.startswith(f"{module}.") for module in modules)


def _size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _is_norm(module: nn.Module) -> bool:
    """Return whether a module is a normalization layer, by its class name; timm's hold their activation as a child."""
    return "Norm" in type(module).__name__ and any(True for _ in module.parameters(recurse=False))


def _no_weight_decay(model: nn.Module, names: Sequence[str]) -> set[str]:
    timm_model, prefix = find_timm_model(model)
    no_weight_decay = getattr(timm_model, "no_weight_decay", tuple)
    no_decay = {f"{prefix}{name}" for name in no_weight_decay()}
    return no_decay | {name for name in names if NO_DECAY_NAMES.search(name) or NO_DECAY_TABLES.search(name)}


def _batch_norms(model: nn.Module, groups: Mapping[str, int], head: int) -> tuple[tuple[str, int], ...]:
    norms = []
    for name, module in model.named_modules():
        if isinstance(module, _BatchNorm):
            owned = [f"{name}.{parameter}" for parameter, _ in module.named_parameters()]
            norms.append((name, groups[owned[0]] if owned else head))
    return tuple(norms)
