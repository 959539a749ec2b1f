"""Fill in the fields that a recipe leaves open: stages of a strategy, layer depths, learning rates and pooling."""

from typing import Any

from transformers import PreTrainedConfig

from hf_finetune.models.defaults import find_defaults
from hf_finetune.models.pooling import default_pooling, fill_pooling, uses_default_pooling
from hf_finetune.planning.head_fit import resolve_head_fits
from hf_finetune.planning.layers import Layout
from hf_finetune.planning.rates import fill_learning_rates, fill_selectors, rate_notes
from hf_finetune.recipe.head import CHECKPOINT_POOLING
from hf_finetune.recipe.head_fit import selects_pooling_by_cv, solver_of
from hf_finetune.recipe.rules import is_adamw
from hf_finetune.recipe.schema import Recipe
from hf_finetune.recipe.stage_fields import (
    GradualUnfreeze,
    OptimizerSpec,
    StageSettings,
    StageSpec,
    StrategySpec,
)
from hf_finetune.tasks import TASKS

__all__ = ["expand_recipe", "write_stages"]

SGD_DEFAULTS: dict[str, Any] = {"lr": 1e-2, "epochs": 20.0, "optimizer": OptimizerSpec(name="sgd")}
"""Defaults for a head that is trained on cached features, where an epoch takes almost no time."""
DEFAULTS: dict[str, Any] = {"epochs": 1.0, "optimizer": OptimizerSpec()}
"""Defaults of the other strategies; the learning rate of each stage is the default of the architecture."""
LR_WITHOUT_ADAMW = 1e-3
"""Learning rate with other optimizers than AdamW, for which architectures have no default."""


def expand_recipe(
    recipe: Recipe, layout: Layout, config: PreTrainedConfig, target: str, examples: int | None
) -> tuple[Recipe, tuple[str, ...]]:
    """Return a recipe with all fields filled in that depend on the checkpoint.

    These are the stages of a strategy, their depth, the solver of the head, the learning rates, and the pooling.

    Args:
        recipe: Recipe as given.
        layout: Layout of the model.
        config: Config of the checkpoint, whose architecture has default rates.
        target: Label type.
        examples: Number of training examples; None if it is not known.

    Returns:
        The recipe, in which every stage that takes optimizer steps has a learning rate; and notes on the fields filled
        in and on given rates that are far from the defaults. Stages whose selector matches nothing are unchanged.
    """
    defaults = find_defaults(config, layout, TASKS[recipe.task_type].modality)
    place, strategy = "", recipe.strategy.name if recipe.strategy else None
    is_single_task = len(recipe.task_names) == 1
    default = default_pooling(config, recipe.model.path, recipe.model.revision)
    uses_default = (
        uses_default_pooling(recipe, default)
        if is_single_task
        else recipe.model.head.pool == CHECKPOINT_POOLING
    )
    if recipe.strategy is not None:
        place = "strategy.lr"
        fields = {name: getattr(recipe, name) for name in type(recipe).model_fields}
        stages = write_stages(recipe.strategy, layout.backbone_group_count)
        recipe = type(recipe)(**{**fields, "strategy": None, "stages": stages})
    with_depths, depth_sentences = fill_selectors(recipe.stages, layout, defaults)
    with_head_fits, fit_sentences = resolve_head_fits(with_depths, layout, target, examples, is_single_task)
    with_rates, rate_sentences = fill_learning_rates(with_head_fits, layout, defaults)
    is_chosen = selects_pooling_by_cv(recipe.model, with_head_fits, strategy)
    model, pooling_sentences = fill_pooling(
        recipe.model, default, uses_default=uses_default, is_chosen=is_chosen
    )
    # the default rates are those of pretrained weights
    unusual_rate_notes = (
        rate_notes(with_head_fits, layout, defaults, place) if recipe.model.new is None else ()
    )
    notes = (*pooling_sentences, *depth_sentences, *fit_sentences, *rate_sentences, *unusual_rate_notes)
    return recipe.model_copy(update={"model": model, "stages": with_rates}), notes


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
    if solver := solver_of(strategy):
        without_steps = {"optimizer": OptimizerSpec(), "fit": solver}
        return (StageSpec(**{**fields, **head, **without_steps}),)
    stage_defaults = DEFAULTS if isinstance(strategy, GradualUnfreeze) else SGD_DEFAULTS
    fields |= {name: value for name, value in stage_defaults.items() if fields[name] is None}
    if fields["lr"] is None and not is_adamw(fields["optimizer"].name):
        fields["lr"] = LR_WITHOUT_ADAMW
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
