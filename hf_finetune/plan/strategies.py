"""Strategies: stages that are written for a model's layer groups."""

from hf_finetune.recipe.schema import StageSettings, StageSpec, StrategySpec

__all__ = ["write_stages"]


def write_stages(strategy: StrategySpec, layer_groups: int) -> tuple[StageSpec, ...]:
    """Write the stages of gradual unfreezing: ``head``, ``last:g``, ``last:2g``, ..., ``all``.

    Whatever else the strategy says goes for each of them; the first has no optimizer to carry on with.

    Args:
        strategy: From a recipe; ``g`` is its ``groups_per_stage``.
        layer_groups: Number of the model's layer groups below the head.
    Source: Howard & Ruder 2018, gradual unfreezing.
    """
    step = strategy.groups_per_stage
    selectors = ["head", *(f"last:{count}" for count in range(step, layer_groups, step)), "all"]
    fields = {name: getattr(strategy, name) for name in StageSettings.model_fields}
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
