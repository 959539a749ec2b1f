"""Parameter groups: which rate and which weight decay each trained parameter gets."""

from collections.abc import Collection
from dataclasses import dataclass

from hf_finetune.plan.layers import Layout

__all__ = ["ParameterGroup", "parameter_groups"]


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters that share a learning rate and a weight decay.

    Attributes:
        layers: The layer groups it spans: ``head``, ``blocks.6``, ``input..blocks.6`` or ``lora in blocks.6``.
        lr: Peak learning rate.
        weight_decay: Weight decay factor, 0 for parameters that are spared.
        parameters: Names, in the model's order.
        size: Number of elements.
    """

    layers: str
    lr: float
    weight_decay: float
    parameters: tuple[str, ...]
    size: int


def parameter_groups(
    layout: Layout, trainable: Collection[str], lr: float, weight_decay: float = 0.0, layer_decay: float = 1.0
) -> tuple[ParameterGroup, ...]:
    """Group the trained parameters by learning rate and weight decay, the head first; no group is empty.

    A layer group ``d`` steps below the head gets the rate ``lr * layer_decay**d``, and so does an adapter in it, in
    a parameter group of its own.

    Args:
        layout: The model's parameters and layer groups.
        trainable: Names of the parameters to train.
        lr: Learning rate of the head.
        weight_decay: Weight decay factor of the parameters that decay.
        layer_decay: Factor per layer group below the head, in (0, 1].
    Raises:
        ValueError: If `layer_decay` is outside (0, 1], or `trainable` names what the model does not have.
    Source: Howard & Ruder 2018, discriminative fine-tuning; Clark et al. 2020, layer-wise learning-rate decay.
    """
    if not 0 < layer_decay <= 1:
        raise ValueError(f"layer_decay must be in (0, 1]. Got {layer_decay!r}.")
    if unknown := sorted(set(trainable) - set(layout.names())):
        raise ValueError(f"trainable must name parameters of the model. Got {', '.join(unknown)}.")
    chosen = set(trainable)
    members: dict[tuple[float, bool, float], list] = {}
    for parameter in layout.parameters:
        if parameter.name in chosen:
            rate = lr * layer_decay ** (layout.backbone_groups - parameter.group)
            decay = weight_decay if parameter.decays else 0.0
            members.setdefault((-rate, parameter.is_adapter, -decay), []).append(parameter)
    groups = []
    for (falling_rate, is_adapter, falling_decay), parameters in sorted(members.items()):
        depths = [parameter.group for parameter in parameters]
        first, last = layout.groups[min(depths)], layout.groups[max(depths)]
        layers = first if first == last else f"{first}..{last}"
        groups.append(
            ParameterGroup(
                layers=f"{layout.adapter} in {layers}" if is_adapter else layers,
                lr=-falling_rate,
                weight_decay=-falling_decay,
                parameters=tuple(parameter.name for parameter in parameters),
                size=sum(parameter.size for parameter in parameters),
            )
        )
    return tuple(groups)
