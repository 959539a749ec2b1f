"""Expand the strategy of a recipe to stages, according to the layer groups of the model."""

from typing import Any

from hf_finetune.recipe.head_fit import fitted_by
from hf_finetune.recipe.rules import is_adamw
from hf_finetune.recipe.schema import OptimizerSpec, StageSettings, StageSpec, StrategySpec
from hf_finetune.recipe.stages import GradualUnfreeze

__all__ = ["write_stages"]

SGD: dict[str, Any] = {"lr": 1e-2, "epochs": 20.0, "optimizer": OptimizerSpec(name="sgd")}
"""Defaults for a head that is trained on cached features, where an epoch takes almost no time."""
OTHERS: dict[str, Any] = {"epochs": 1.0, "optimizer": OptimizerSpec()}
"""Defaults of the other strategies; the learning rate of each stage is the default of the architecture."""
WITHOUT_ADAMW = 1e-3
"""Learning rate with other optimizers than AdamW, for which architectures have no default."""


def write_stages(strategy: StrategySpec, layer_groups: int) -> tuple[StageSpec, ...]:
    """Return the stages of a strategy. Its other settings apply to each of them.

    Gradual unfreezing trains ``head``, ``last:g``, ``last:2g``, ..., ``all``; the first stage has no optimizer state to
    keep. The strategy ``features`` trains ``head`` alone.

    Args:
        strategy: Strategy of a recipe; ``g`` is its ``groups_per_stage``.
        layer_groups: Number of the model's layer groups below the head.

    Source: Howard & Ruder 2018, gradual unfreezing.
    """
    fields = {name: getattr(strategy, name) for name in StageSettings.model_fields}
    head = {"name": "head", "train": "head", "carry_optimizer": False}
    if how := fitted_by(strategy):
        without_steps = {"optimizer": OptimizerSpec(), "fit": how}
        return (StageSpec(**{**fields, **head, **without_steps}),)
    usual = OTHERS if isinstance(strategy, GradualUnfreeze) else SGD
    fields |= {name: value for name, value in usual.items() if fields[name] is None}
    if fields["lr"] is None and not is_adamw(fields["optimizer"].name):
        fields["lr"] = WITHOUT_ADAMW
    if strategy.max_steps is not None:
        fields["epochs"] = strategy.epochs
    if not isinstance(strategy, GradualUnfreeze):
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
