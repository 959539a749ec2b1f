"""Parameter groups for a custom optimizer, with the learning rates that a stage of a recipe would have."""

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
from hf_finetune.recipe.stage_fields import RatesSpec

__all__ = ["parameter_groups"]


def parameter_groups(
    model: nn.Module,
    train: str | Sequence[str] = "all",
    lr: float | Mapping[str, Any] | RatesSpec = 1e-3,
    weight_decay: float = 0.01,
    layer_decay: float = 1.0,
) -> list[dict[str, Any]]:
    """Return parameter groups for a ``torch.optim`` optimizer, those of the head first.

    Head and backbone never share a group, so that each can have its own schedule. This function freezes nothing:
    ``FreezingCallback`` does, and needs an optimizer over all parameters that any of its phases trains.

    Args:
        model: A classifier of transformers or timm, or any other module.
        train: Parameters to train, by a selector as in a recipe's ``train:``.
        lr: Learning rate of the head, or ``{"head": 1e-3, "backbone": 1e-5}``. The backbone may have a pair of rates:
            the first nearest the input, the second nearest the head.
        weight_decay: Weight decay factor; norms, biases and parameters that timm exempts have none.
        layer_decay: Factor on the rate per layer group below the head, in (0, 1].

    Returns:
        Groups with the keys ``params``, ``lr``, ``weight_decay``, ``layers`` (the head or layer groups that it spans)
        and ``name`` (``head`` or ``backbone``). No group is empty.

    Raises:
        InputError: If the selector matches nothing, or ``lr`` is not a valid rate.
        ValueError: If ``layer_decay`` is invalid.

    Example:
        >>> from torch.optim import AdamW
        >>> from hf_finetune import parameter_groups
        >>> groups = parameter_groups(model, "last:1", lr={"head": 1e-3, "backbone": 1e-5})
        >>> [(group["name"], group["lr"], group["weight_decay"], len(group["params"])) for group in groups]
        [('head', 0.001, 0.01, 1), ('head', 0.001, 0.0, 1), ('backbone', 1e-05, 0.01, 7), ('backbone', 1e-05, 0.0, 11)]
        >>> optimizer = AdamW(groups)
    """
    inner = extract_model_from_parallel(model, keep_torch_compile=False)
    layout = read_layout(inner)
    chosen = select(layout, train)
    head = {parameter.name for parameter in layout.parameters if parameter.group == layout.head_group}
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
            [Problem(f"lr.{problem.place}", problem.rule, problem.value) for problem in problems_of(error)]
        ) from error
