"""Strategies: stages that are written for a model's layer groups."""

from typing import Any

from hf_finetune.recipe.fitting import fitted_by
from hf_finetune.recipe.schema import OptimizerSpec, StageSettings, StageSpec, StrategySpec

__all__ = ["write_stages"]

LR = 1e-3
SGD: dict[str, Any] = {"lr": 1e-2, "epochs": 20.0, "optimizer": OptimizerSpec(name="sgd")}
"""Of a head that is trained on kept features, where an epoch takes no time."""


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
    if strategy.name == "features":
        return (_on_features(strategy, fields),)
    step = strategy.groups_per_stage
    selectors = ["head", *(f"last:{count}" for count in range(step, layer_groups, step)), "all"]
    fields["lr"] = strategy.lr if strategy.lr is not None else LR
    if strategy.epochs is None and strategy.max_steps is None:
        fields["epochs"] = 1.0
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


def _on_features(strategy: StrategySpec, fields: dict[str, Any]) -> StageSpec:
    if how := fitted_by(strategy):
        return StageSpec(**{**fields, "name": "head", "train": "head", "fit": how})
    wanted = dict(SGD)
    if strategy.max_steps is not None:
        del wanted["epochs"]
    given = strategy.model_fields_set
    filled = {name: value for name, value in wanted.items() if name not in given or fields[name] is None}
    return StageSpec(**{**fields, **filled, "name": "head", "train": "head", "carry_optimizer": False})
