"""Parameter groups: the learning rate, weight decay and schedule of each trained parameter."""

from collections.abc import Collection
from dataclasses import dataclass

from hf_finetune.planning.layers import Layout, Parameter
from hf_finetune.recipe.schedule import LINEAR, ScheduleSpec, SchedulesSpec
from hf_finetune.recipe.stage_fields import RatesSpec

__all__ = ["ParameterGroup", "layer_rates", "plan_groups"]


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters that share a learning rate, a weight decay and a schedule.

    Attributes:
        layers: Head or layer groups that it spans: ``head``, ``blocks.6``, ``input..blocks.6`` or ``lora in blocks.6``.
        lr: Peak learning rate.
        weight_decay: Weight decay factor; 0 for parameters without weight decay.
        parameters: Names of the parameters, in the model's order.
        size: Number of elements of all its parameters.
        schedule: Learning-rate schedule over the stage's steps.
    """

    layers: str
    lr: float
    weight_decay: float
    parameters: tuple[str, ...]
    size: int
    schedule: ScheduleSpec = LINEAR


def plan_groups(
    layout: Layout,
    trainable: Collection[str],
    lr: float | RatesSpec,
    weight_decay: float = 0.0,
    layer_decay: float = 1.0,
    schedule: ScheduleSpec | SchedulesSpec = LINEAR,
    decay_head_only: bool = False,
) -> tuple[ParameterGroup, ...]:
    """Return the trained parameters in groups of equal rate, weight decay and schedule, the highest rate first.

    No group is empty. An adapter has the rate of its layer group, in a separate parameter group.

    Args:
        layout: Parameters and layer groups of the model.
        trainable: Names of the parameters to train.
        lr: Learning rate of the head, or rates for head and backbone.
        weight_decay: Weight decay factor of the parameters to which it applies.
        layer_decay: Factor per layer group below the head, in (0, 1]; 1 if ``lr`` has a rate for the backbone.
        schedule: Learning-rate schedule of all parameters, or one each for head and backbone.
        decay_head_only: Whether the backbone has no weight decay, because another penalty (L2-SP) replaces it.

    Raises:
        ValueError: If ``layer_decay`` is invalid, or ``trainable`` contains names that the model does not have.
    """
    rates = layer_rates(layout.backbone_group_count, lr, layer_decay)
    if unknown := sorted(set(trainable) - set(layout.names())):
        raise ValueError(f"trainable must name parameters of the model. Got {', '.join(unknown)}.")
    if isinstance(schedule, SchedulesSpec) and schedule.head == schedule.backbone:
        schedule = schedule.head
    trained = set(trainable)
    members: dict[tuple[float, float, bool, bool], list[Parameter]] = {}
    for parameter in layout.parameters:
        if parameter.name in trained:
            in_head = parameter.group == layout.head_group
            decay = weight_decay if parameter.decays and (in_head or not decay_head_only) else 0.0
            uses_backbone_schedule = isinstance(schedule, SchedulesSpec) and not in_head
            key = (rates[parameter.group], decay, uses_backbone_schedule, parameter.is_adapter)
            members.setdefault(key, []).append(parameter)
    groups = []
    for (rate, decay, uses_backbone_schedule, is_adapter), parameters in sorted(
        members.items(), key=_sort_key
    ):
        indices = [parameter.group for parameter in parameters]
        first, last = layout.groups[min(indices)], layout.groups[max(indices)]
        layers = first if first == last else f"{first}..{last}"
        group_schedule = schedule
        if isinstance(group_schedule, SchedulesSpec):
            group_schedule = group_schedule.backbone if uses_backbone_schedule else group_schedule.head
        groups.append(
            ParameterGroup(
                layers=f"{layout.adapter} in {layers}" if is_adapter else layers,
                lr=rate,
                weight_decay=decay,
                parameters=tuple(parameter.name for parameter in parameters),
                size=sum(parameter.size for parameter in parameters),
                schedule=group_schedule,
            )
        )
    return tuple(groups)


def layer_rates(layer_groups: int, lr: float | RatesSpec, layer_decay: float = 1.0) -> tuple[float, ...]:
    """Return the peak learning rates of the layer groups, input first, and of the head.

    With a single rate, a layer group ``d`` groups below the head has ``lr * layer_decay**d``. With a range for the
    backbone, the rates of its layer groups grow by equal factors from the first value, nearest the input, to the
    second, nearest the head; a single layer group has the second.

    Args:
        layer_groups: Number of layer groups below the head.
        lr: Learning rate of the head, or rates for head and backbone.
        layer_decay: Factor per layer group below the head, in (0, 1].

    Returns:
        ``layer_groups + 1`` learning rates.

    Raises:
        ValueError: If ``layer_decay`` is outside (0, 1], or not 1 although ``lr`` has a rate for the backbone.

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


def _sort_key(
    item: tuple[tuple[float, float, bool, bool], object],
) -> tuple[float, bool, float, bool]:
    (rate, decay, uses_backbone_schedule, is_adapter), _ = item
    return -rate, is_adapter, -decay, uses_backbone_schedule
