"""Prune a model: feed-forward layers with fewer neurons, or the smallest weights set to 0.

A narrower model has the same architecture, and plain transformers builds it from its config. The least important
neurons are removed: those with the smallest input and output weights, as in magnitude pruning (Li et al., Pruning
Filters for Efficient ConvNets, ICLR 2017). Every layer loses the same number, as a config has one width for all.
"""

import copy
import re
from collections import defaultdict
from collections.abc import Mapping

import timm
import torch
from torch import nn
from torch.nn.utils.prune import L1Unstructured
from transformers import PreTrainedConfig, PreTrainedModel, TimmWrapperConfig
from transformers.pytorch_utils import Conv1D

from hf_finetune.models.find_head import head_names

__all__ = [
    "CannotNarrowError",
    "narrow_config",
    "narrow_model",
    "narrow_weights",
    "pruning_masks",
    "zero_smallest",
]

WIDTH_FIELDS = ("intermediate_size", "hidden_dim", "n_inner", "mlp_ratio")
"""Config fields for the width of the feed-forward layers, in neurons or as a multiple of the hidden size."""
WIDTH_MULTIPLE = 8
"""Common divisor of pruned widths: matrix products are slower at odd sizes."""
GPT2_RATIO = 4
"""Feed-forward width of GPT-2 as a multiple of the hidden size, if its config does not set the width."""
NO_WIDTH = "must be unstructured for a model whose config has no single feed-forward width"
PRUNED_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, Conv1D)


class CannotNarrowError(ValueError):
    """Error for a model that cannot be narrowed by the requested fraction.

    Attributes:
        field: Invalid field of ``compress``: ``method`` or ``prune``.
        rule: Rule that the field must satisfy.
    """

    def __init__(self, rule: str = NO_WIDTH, field: str = "method"):
        self.field, self.rule = field, rule
        super().__init__(f"{field} {rule}")


def narrow_model(model: PreTrainedModel, fraction: float) -> PreTrainedModel:
    """Build the same model with narrower feed-forward layers, and copy the weights of the remaining neurons.

    Args:
        model: Any classifier. The result is on the same device, which may be the meta device.
        fraction: Fraction of the neurons of each feed-forward layer to remove, in (0, 1).

    Raises:
        CannotNarrowError: If the config has no such width, or cannot express the smaller one.
    """
    config = narrow_config(model.config, fraction)
    with torch.device(model.device):
        narrow: PreTrainedModel = type(model)._from_config(config, dtype=model.dtype)
    shapes = {name: tuple(value.shape) for name, value in narrow.state_dict().items()}
    weights = narrow_weights(model.state_dict(), shapes)
    if model.device.type != "meta":
        narrow.load_state_dict(weights)
    return narrow.train(model.training)


def narrow_config(config: PreTrainedConfig, fraction: float) -> PreTrainedConfig:
    """Return the config of the same model with narrower feed-forward layers.

    Args:
        config: Config of the model.
        fraction: Fraction of the neurons to remove, in (0, 1).

    Raises:
        CannotNarrowError: If the config has no such width, or cannot express the smaller one.
    """
    narrow = copy.deepcopy(config)
    if isinstance(config, TimmWrapperConfig):
        narrow.model_args = {
            **(config.model_args or {}),
            "mlp_ratio": _reduced_ratio(_timm_ratio(config), fraction),
        }
        return narrow
    for name in WIDTH_FIELDS:
        value = getattr(config, name, None)
        if name == "n_inner" and hasattr(config, name) and value is None:
            value = GPT2_RATIO * config.hidden_size
        if not isinstance(value, int | float):
            continue
        if name != "mlp_ratio":
            setattr(narrow, name, _reduced_width(int(value), fraction))
        elif _is_integer(config, name):
            setattr(narrow, name, _reduced_integer_ratio(int(value), fraction))
        else:
            setattr(narrow, name, _reduced_ratio(float(value), fraction))
        return narrow
    raise CannotNarrowError


def _reduced_width(width: int, fraction: float) -> int:
    narrow = max(WIDTH_MULTIPLE, round(width * (1 - fraction) / WIDTH_MULTIPLE) * WIDTH_MULTIPLE)
    if narrow >= width:
        rule = (
            f"must be greater: widths are rounded to multiples of {WIDTH_MULTIPLE}, so all {width} neurons of a "
            "layer would be kept"
        )
        raise CannotNarrowError(rule, "prune")
    return narrow


def _reduced_ratio(ratio: float, fraction: float) -> float:
    return round(ratio * (1 - fraction), 4)


def _reduced_integer_ratio(ratio: int, fraction: float) -> int:
    narrow = round(ratio * (1 - fraction))
    if abs(narrow - ratio * (1 - fraction)) > 1e-6:
        possible = ", ".join(f"{part / ratio:.4g}" for part in range(1, ratio)) or "no fraction"
        rule = f"must be one of {possible} for a model whose width is an integer multiple of the hidden size"
        raise CannotNarrowError(rule, "prune")
    return narrow


def _is_integer(config: PreTrainedConfig, name: str) -> bool:
    """Return whether a config field accepts integers only, which transformers 5 checks when it reads a config."""
    field = getattr(type(config), "__dataclass_fields__", {}).get(name)
    return field is not None and field.type in (int, "int")


def _timm_ratio(config: TimmWrapperConfig) -> float:
    """Compute the ratio of a timm model's feed-forward width to its input, by comparison with a model of ratio 1.

    Raises:
        CannotNarrowError: If the architecture has no single such ratio.
    """
    arguments = dict(config.model_args or {})
    if "mlp_ratio" in arguments:
        return float(arguments["mlp_ratio"])
    with torch.device("meta"):
        try:
            plain = timm.create_model(config.architecture, **arguments)
            unit_ratio = timm.create_model(config.architecture, **arguments, mlp_ratio=1.0)
        except TypeError as error:  # its architecture has no such argument
            raise CannotNarrowError from error
    before, after = plain.state_dict(), unit_ratio.state_dict()
    if before.keys() != after.keys():
        raise CannotNarrowError
    pairs = [
        pair for name in before for pair in zip(before[name].shape, after[name].shape, strict=True) if pair[1]
    ]
    ratios = {round(wide / narrow, 4) for wide, narrow in pairs if wide != narrow}
    if len(ratios) != 1:
        raise CannotNarrowError
    return ratios.pop()


def narrow_weights(
    weights: Mapping[str, torch.Tensor], shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, torch.Tensor]:
    """Return weights in the shapes of the narrower model, with the most important neurons of each block.

    A block is a numbered module, such as ``encoder.layer.3``. If a dimension holds several concatenated parts, as
    the gate and value of a gated layer, the same neurons are removed from each part.

    Args:
        weights: Weights of the model, by name.
        shapes: Shapes of the narrower model's weights, by name.

    Raises:
        CannotNarrowError: If no shape differs, or if the differences in a block are not one width that is the output
            of one matrix and the input of another.
    """
    if weights.keys() != shapes.keys():
        raise CannotNarrowError
    blocks: dict[str, list[tuple[str, int]]] = defaultdict(list)
    for name, value in weights.items():
        for dimension, (before, after) in enumerate(zip(value.shape, shapes[name], strict=True)):
            if before != after:
                blocks[_block(name)].append((name, dimension))
    if not blocks:
        raise CannotNarrowError
    narrowed = dict(weights)
    for dimensions in blocks.values():
        before = min(weights[name].shape[dimension] for name, dimension in dimensions)
        after = min(shapes[name][dimension] for name, dimension in dimensions)
        matrices = {name for name, _ in dimensions if weights[name].ndim > 1}
        if not 0 < after < before or len(matrices) < 2:
            raise CannotNarrowError
        neurons = _most_important_neurons(weights, dimensions, before, after)
        for name, dimension in dimensions:
            parts, remainder = divmod(weights[name].shape[dimension], before)
            if remainder or shapes[name][dimension] != parts * after:
                raise CannotNarrowError
            rows = torch.cat([neurons + part * before for part in range(parts)])
            narrowed[name] = narrowed[name].index_select(dimension, rows).contiguous()
    return narrowed


def _most_important_neurons(
    weights: Mapping[str, torch.Tensor], dimensions: list[tuple[str, int]], before: int, after: int
) -> torch.Tensor:
    """Return the ascending indices [after] of the neurons with the largest product of input and output weight norms."""
    importance = torch.zeros(before, dtype=torch.float64, device=weights[dimensions[0][0]].device)
    for name, dimension in dimensions:
        value = weights[name].detach()
        if value.ndim < 2:
            continue
        size = value.numel() // value.shape[dimension]
        rows = value.double().movedim(dimension, 0).reshape(-1, before, size)
        importance = importance + rows.pow(2).sum(dim=(0, 2)).sqrt().log()
    return importance.argsort(descending=True, stable=True)[:after].sort().values


def _block(name: str) -> str:
    """Return the name of the numbered module that holds a weight; that of the direct parent if none is numbered."""
    match = re.match(r"(.*\.\d+)\.", name)
    return match[1] if match else name.rpartition(".")[0]


def zero_smallest(model: nn.Module, fraction: float) -> None:
    """Set the smallest weights of the backbone's linear and convolution layers to 0, ranked across all layers.

    Args:
        model: A classifier, changed in place. Its head is not pruned.
        fraction: Fraction of these weights that are 0 afterwards, including those that are 0 already, in (0, 1).
    """
    weights = _backbone_weights(model)
    together = torch.cat([weight.detach().flatten() for weight in weights])
    mask = L1Unstructured(fraction).compute_mask(together, torch.ones_like(together))
    for weight, keep in zip(weights, mask.split([tensor.numel() for tensor in weights]), strict=True):
        weight.data.masked_fill_(keep.view_as(weight) == 0, 0.0)


def pruning_masks(model: nn.Module) -> list[tuple[nn.Parameter, torch.Tensor]]:
    """Return each weight that ``zero_smallest`` may prune, with a boolean mask that is True where the weight is 0."""
    return [(weight, weight.detach() == 0) for weight in _backbone_weights(model)]


def _backbone_weights(model: nn.Module) -> list[nn.Parameter]:
    """Return the weights of linear and convolution layers outside the head; a shared weight once."""
    head = set(head_names(model))
    names = {f"{name}.weight" for name, module in model.named_modules() if isinstance(module, PRUNED_LAYERS)}
    return [value for name, value in model.named_parameters() if name in names and name not in head]
