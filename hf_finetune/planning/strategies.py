"""Strategies: stages that are written for a model's layer groups."""

from typing import Any

from hf_finetune.recipe.head_fit import fitted_by
from hf_finetune.recipe.rules import is_adamw
from hf_finetune.recipe.schema import OptimizerSpec, StageSettings, StageSpec, StrategySpec

__all__ = ["write_stages"]

SGD: dict[str, Any] = {"lr": 1e-2, "epochs": 20.0, "optimizer": OptimizerSpec(name="sgd")}
"""Of a head that is trained on kept features, where an epoch takes no time."""
OTHERS: dict[str, Any] = {"epochs": 1.0, "optimizer": OptimizerSpec()}
"""The rate of each stage is the architecture's."""
WITHOUT_ADAMW = 1e-3
"""Rate with other optimizers, for which no architecture has a default."""


def write_stages(strategy: StrategySpec, layer_groups: int) -> tuple[StageSpec, ...]:
    """Write the stages of a strategy. Whatever else it says goes for each of them.

    Gradual unfreezing is ``head``, ``last:g``, ``last:2g``, ..., ``all``; the first has no optimizer to carry on with.
    Features is ``head`` alone.

    Args:
        strategy: From a recipe; ``g`` is its ``groups_per_stage``.
        layer_groups: Number of the model's layer groups below the head.
    Source: Howard & Ruder 2018, gradual unfreezing.
    """
    fields = {name: getattr(strategy, name) for name in StageSettings.model_fields}
    head = {"name": "head", "train": "head", "carry_optimizer": False}
    if how := fitted_by(strategy):
        without_steps = {"optimizer": OptimizerSpec(), "fit": how}
        return (StageSpec(**{**fields, **head, **without_steps}),)
    usual = SGD if strategy.name == "features" else OTHERS
    fields |= {name: value for name, value in usual.items() if fields[name] is None}
    if fields["lr"] is None and not is_adamw(fields["optimizer"].name):
        fields["lr"] = WITHOUT_ADAMW
    if strategy.max_steps is not None:
        fields["epochs"] = strategy.epochs
    if strategy.name == "features":
        return (StageSpec(**{**fields, **head}),)
    step = strategy.groups_per_stage
    selectors = ["head", *(f"last:{count}" for count in range(step, layer_groups, step)), "all"]
    return tuple(
        StageSpec(
            **{
                **fields,
                "name": selector.replace(":", "-"),
                "train": selector,
                "carry_optimizer": strategy.carry_optimizer and index > 0,
            }
        )
        for index, selector in enumerate(selectors if layer_groups else ["head"])
    )
