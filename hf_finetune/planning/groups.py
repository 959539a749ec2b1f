"""Parameter groups: which rate, weight decay and schedule each trained parameter gets."""

from collections.abc import Collection
from dataclasses import dataclass

from hf_finetune.planning.layers import Layout, Parameter
from hf_finetune.recipe.schema import RatesSpec, ScheduleSpec, SchedulesSpec

__all__ = ["ParameterGroup", "layer_rates", "plan_groups"]


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters that share a learning rate, a weight decay and a schedule.

    Attributes:
        layers: The layer groups it spans: ``head``, ``blocks.6``, ``input..blocks.6`` or ``lora in blocks.6``.
        lr: Peak learning rate.
        weight_decay: Weight decay factor, 0 for parameters that are spared.
        parameters: Names, in the model's order.
        size: Number of elements.
        schedule: Shape of the rate over the stage's steps; None leaves it to the Trainer.
    """

    layers: str
    lr: float
    weight_decay: float
    parameters: tuple[str, ...]
    size: int
    schedule: ScheduleSpec | None = None


def plan_groups(
    layout: Layout,
    trainable: Collection[str],
    lr: float | RatesSpec,
    weight_decay: float = 0.0,
    layer_decay: float = 1.0,
    schedule: ScheduleSpec | SchedulesSpec | None = None,
    decay_head_only: bool = False,
) -> tuple[ParameterGroup, ...]:
    """Group the trained parameters by rate, decay and schedule, the highest rate first; no group is empty.

    An adapter in a layer group has that group's rate, in a parameter group of its own.

    Args:
        layout: The model's parameters and layer groups.
        trainable: Names of the parameters to train.
        lr: Learning rate of the head, or rates for head and backbone.
        weight_decay: Weight decay factor of the parameters that decay.
        layer_decay: Factor per layer group below the head, in (0, 1]; 1 when `lr` has a rate for the backbone.
        schedule: Shape of every rate over the steps, or one for head and backbone each.
        decay_head_only: Whether what is below the head has no weight decay, as something else pulls it.
    Raises:
        ValueError: If `layer_decay` does not fit, or `trainable` names what the model does not have.
    """
    rates = layer_rates(layout.backbone_groups, lr, layer_decay)
    if unknown := sorted(set(trainable) - set(layout.names())):
        raise ValueError(f"trainable must name parameters of the model. Got {', '.join(unknown)}.")
    if isinstance(schedule, SchedulesSpec) and schedule.head == schedule.backbone:
        schedule = schedule.head
    chosen = set(trainable)
    members: dict[tuple[float, float, bool, bool], list[Parameter]] = {}
    for parameter in layout.parameters:
        if parameter.name in chosen:
            in_head = parameter.group == layout.backbone_groups
            decay = weight_decay if parameter.decays and (in_head or not decay_head_only) else 0.0
            apart = isinstance(schedule, SchedulesSpec) and parameter.group < layout.backbone_groups
            key = (rates[parameter.group], decay, apart, parameter.is_adapter)
            members.setdefault(key, []).append(parameter)
    groups = []
    for (rate, decay, apart, is_adapter), parameters in sorted(members.items(), key=_fastest_first):
        depths = [parameter.group for parameter in parameters]
        first, last = layout.groups[min(depths)], layout.groups[max(depths)]
        layers = first if first == last else f"{first}..{last}"
        shape = schedule
        if isinstance(shape, SchedulesSpec):
            shape = shape.backbone if apart else shape.head
        groups.append(
            ParameterGroup(
                layers=f"{layout.adapter} in {layers}" if is_adapter else layers,
                lr=rate,
                weight_decay=decay,
                parameters=tuple(parameter.name for parameter in parameters),
                size=sum(parameter.size for parameter in parameters),
                schedule=shape,
            )
        )
    return tuple(groups)


def layer_rates(layer_groups: int, lr: float | RatesSpec, layer_decay: float = 1.0) -> tuple[float, ...]:
    """Give the peak rate of each layer group, input first, and of the head, which is the last.

    From one rate, a layer group ``d`` steps below the head gets ``lr * layer_decay**d``. From a range, the layer
    groups' rates grow by equal factors from its first value, nearest the input, to its second, nearest the head;
    a single layer group gets the second.

    Args:
        layer_groups: Number of layer groups below the head.
        lr: Learning rate of the head, or rates for head and backbone.
        layer_decay: Factor per layer group below the head, in (0, 1].
    Raises:
        ValueError: If `layer_decay` is outside (0, 1], or not 1 beside a rate for the backbone.
    Source: Howard & Ruder 2018, discriminative fine-tuning; Clark et al. 2020, layer-wise learning-rate decay;
        the range is fastai's ``slice(first, second)``, its ``even_mults``.
    """
    if not 0 < layer_decay <= 1:
        raise ValueError(f"layer_decay must be in (0, 1]. Got {layer_decay!r}.")
    if not isinstance(lr, RatesSpec):
        return tuple(lr * layer_decay**depth for depth in range(layer_groups, -1, -1))
    if layer_decay != 1:
        raise ValueError(f"layer_decay must be 1 when lr has a rate for the backbone. Got {layer_decay!r}.")
    low, high = lr.backbone if isinstance(lr.backbone, tuple) else (lr.backbone, lr.backbone)
    last = layer_groups - 1
    backbone = [
        low * (high / low) ** (index / last) if index < last else high for index in range(layer_groups)
    ]
    return (*backbone, lr.head)


def _fastest_first(
    item: tuple[tuple[float, float, bool, bool], object],
) -> tuple[float, bool, float, bool]:
    (rate, decay, apart, is_adapter), _ = item
    return -rate, is_adapter, -decay, apart
