"""Layout of a model, on which plans are based: names, sizes and layer groups of its parameters."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

__all__ = ["HEAD", "Layout", "Parameter", "assign_groups"]

HEAD = "head"
"""Title of the head in ``Layout.groups``."""


@dataclass(frozen=True)
class Parameter:
    """Parameter of a model.

    Attributes:
        name: Name in ``model.named_parameters()``.
        size: Number of elements.
        group: Index into ``Layout.groups``, 0 = nearest the input.
        is_norm: Whether it belongs to a normalization layer.
        decays: Whether weight decay applies: not to norms, biases, and parameters in timm's ``no_weight_decay()``.
        is_adapter: Whether it belongs to an adapter.
    """

    name: str
    size: int
    group: int
    is_norm: bool = False
    decays: bool = True
    is_adapter: bool = False

    @property
    def bare_name(self) -> str:
        """Parameter name in the model without adapters: peft moves an adapted layer into its ``base_layer``."""
        return self.name.replace(".base_layer.", ".")

    @property
    def is_bias(self) -> bool:
        """Whether this is a bias, by its name."""
        return self.name.rpartition(".")[2] == "bias"


@dataclass(frozen=True)
class Layout:
    """Parameters of a model in order, and their layer groups.

    Attributes:
        parameters: Parameters in the order of ``model.named_parameters()``; a shared parameter occurs once.
        groups: Names of the layer groups, input first, and then ``head``.
        batch_norms: Module name of each BatchNorm layer, with its index into ``groups``.
        source: Origin of the layer groups, for the user: "timm group_matcher", ...
        note: Note for the user if the architecture is unknown; empty otherwise.
        adapter: Kind of the model's adapter: ``lora``, ``dora``, ``ia3``; empty if it has none.
    """

    parameters: tuple[Parameter, ...]
    groups: tuple[str, ...]
    batch_norms: tuple[tuple[str, int], ...] = ()
    source: str = ""
    note: str = ""
    adapter: str = ""

    @property
    def head_group(self) -> int:
        """Index of the head, after the last layer group."""
        return len(self.groups) - 1

    @property
    def backbone_group_count(self) -> int:
        """Number of layer groups below the head."""
        return len(self.groups) - 1

    @cached_property
    def size(self) -> int:
        """Number of elements of all parameters."""
        return sum(parameter.size for parameter in self.parameters)

    def names(self) -> tuple[str, ...]:
        """Return the names of the parameters, in order."""
        return tuple(parameter.name for parameter in self.parameters)


def assign_groups(
    names: Sequence[str], layers: Sequence[str], head: Sequence[str], input_parameters: Sequence[str] = ()
) -> tuple[Mapping[str, int], tuple[str, ...]]:
    """Assign each parameter to a layer group, which is the input or one of the layers, or to the head.

    Parameters before the first layer belong to the input, those between two layers to the later one (a downsampling
    before a block), unless they end an encoder (its final norm), and those after the last layer to that layer (a final
    norm, a pooler).

    Args:
        names: Parameter names in the model's order.
        layers: Module name of each layer of the backbone, input first.
        head: Names of the head's parameters.
        input_parameters: Names of parameters of the input group that are registered later (position embeddings).

    Returns:
        The group index of each name, and the names of the layer groups, input first, and then ``head``.
    """
    in_head, early = set(head), set(input_parameters)
    owner = {
        name: index for index, layer in enumerate(layers) for name in names if name.startswith(f"{layer}.")
    }
    position_of = {name: position for position, name in enumerate(names)}
    in_layers = [name for name in names if name in owner and name not in in_head and name not in early]
    groups: dict[str, int] = {}
    for position, name in enumerate(names):
        if name in in_head:
            groups[name] = len(layers) + 1
        elif name in early:
            groups[name] = 0
        elif name in owner:
            groups[name] = owner[name] + 1
        else:
            before = [owner[neighbor] for neighbor in in_layers if position_of[neighbor] < position]
            after = [owner[neighbor] for neighbor in in_layers if position_of[neighbor] > position]
            groups[name] = _group_of_unlisted(name, before, after, layers)
    return _renumber(groups, ("input", *layers, HEAD))


def _group_of_unlisted(name: str, before: Sequence[int], after: Sequence[int], layers: Sequence[str]) -> int:
    """Return the group of a parameter outside the layers, given the layers registered before and after it.

    The norm at the end of an encoder is registered before the first layer of the decoder, with which it shares fewer
    of the modules that contain them.
    """
    if not before:
        return 0
    last = max(before)
    later = [layer for layer in after if layer > last]
    if not later or _shared_modules(name, layers[last]) > _shared_modules(name, layers[min(later)]):
        return last + 1
    return min(later) + 1


def _shared_modules(first: str, second: str) -> int:
    """Return the number of modules that contain both of two modules or parameters."""
    pairs = zip(first.split("."), second.split("."), strict=False)
    return next((level for level, (one, other) in enumerate(pairs) if one != other), 0)


def _renumber(groups: Mapping[str, int], titles: Sequence[str]) -> tuple[Mapping[str, int], tuple[str, ...]]:
    """Drop groups without parameters and renumber the others. The head, the last one, stays even if it is empty."""
    used = sorted({*groups.values(), len(titles) - 1})
    renumbered = {old: new for new, old in enumerate(used)}
    return {name: renumbered[group] for name, group in groups.items()}, tuple(titles[old] for old in used)
