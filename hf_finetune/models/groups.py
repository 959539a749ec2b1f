"""Parameter groups for an optimizer of one's own, with the rates that a stage of a recipe would have."""

from collections.abc import Mapping, Sequence
from typing import Any

from accelerate.utils import extract_model_from_parallel
from pydantic import ValidationError
from torch import nn

from hf_finetune.errors import InputError, Problem
from hf_finetune.models.layout import read_layout
from hf_finetune.planning.groups import plan_groups
from hf_finetune.planning.selectors import select
from hf_finetune.recipe.messages import problems_of
from hf_finetune.recipe.schema import RatesSpec

__all__ = ["parameter_groups"]


def parameter_groups(
    model: nn.Module,
    train: str | Sequence[str] = "all",
    lr: float | Mapping[str, Any] | RatesSpec = 1e-3,
    weight_decay: float = 0.01,
    layer_decay: float = 1.0,
) -> list[dict[str, Any]]:
    """Give the parameter groups of a ``torch.optim`` optimizer; the head's come first, no group is empty.

    Each is a mapping with ``params``, ``lr``, ``weight_decay``, ``layers`` (the layer groups it spans) and ``name``:
    ``head`` or ``backbone``, which never share a group, so that each may have a schedule of its own. Nothing is
    frozen: that is what ``FreezingCallback`` does, whose phases need an optimizer of all that any of them trains.

    Args:
        model: A classifier of transformers or timm, or any other module.
        train: Which parameters, by a selector as in a recipe's ``train:``.
        lr: Learning rate of the head, or ``{"head": 1e-3, "backbone": 1e-5}``; of a pair for the backbone the first
            is nearest the input, the second nearest the head.
        weight_decay: Weight decay factor; norms, biases and what timm exempts are spared.
        layer_decay: Factor on the rate per layer group below the head, in (0, 1].
    Raises:
        InputError: If the selector matches nothing, or `lr` is no rate.
        ValueError: If `layer_decay` does not fit.
    """
    inner = extract_model_from_parallel(model, keep_torch_compile=False)
    layout = read_layout(inner)
    chosen = select(layout, train)
    head = {parameter.name for parameter in layout.parameters if parameter.group == layout.backbone_groups}
    parameters = dict(inner.named_parameters())
    rates = _rates(lr)
    return [
        {
            "params": [parameters[name] for name in group.parameters],
            "lr": group.lr,
            "weight_decay": group.weight_decay,
            "name": part,
            "layers": group.layers,
        }
        for part in ("head", "backbone")
        for group in plan_groups(
            layout,
            [name for name in chosen if (name in head) == (part == "head")],
            rates,
            weight_decay,
            layer_decay,
        )
    ]


def _rates(lr: float | Mapping[str, Any] | RatesSpec) -> float | RatesSpec:
    if not isinstance(lr, Mapping):
        if isinstance(lr, RatesSpec) or lr > 0:
            return lr
        raise InputError(Problem("lr", "must be above 0", repr(lr)))
    try:
        return RatesSpec.model_validate(dict(lr))
    except ValidationError as error:
        raise InputError(
            [Problem(f"lr.{one.place}", one.rule, one.value) for one in problems_of(error)]
        ) from error
