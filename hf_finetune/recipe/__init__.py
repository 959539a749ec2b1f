"""Recipes: schema, loading, overrides and shipped recipes."""

from hf_finetune.recipe.augment import AugmentSpec
from hf_finetune.recipe.head import HeadSpec
from hf_finetune.recipe.load import dump_recipe, json_schema, load_recipe, parse_recipe, resolve_paths
from hf_finetune.recipe.mixing import MixingSpec
from hf_finetune.recipe.multitask import MultiTaskRecipe, TaskSpec
from hf_finetune.recipe.schema import (
    AdapterSpec,
    BestSpec,
    ColumnsSpec,
    CompressSpec,
    DataSpec,
    DomainSpec,
    EarlyStoppingSpec,
    EvaluationSpec,
    ModelSpec,
    OptimizerSpec,
    PublishSpec,
    RatesSpec,
    Recipe,
    ScheduleSpec,
    SchedulesSpec,
    SingleTaskRecipe,
    SpeedSpec,
    SplitSpec,
    StageSettings,
    StageSpec,
    StrategySpec,
)
from hf_finetune.recipe.shipped import shipped_recipes

__all__ = [
    "AdapterSpec",
    "AugmentSpec",
    "BestSpec",
    "ColumnsSpec",
    "CompressSpec",
    "DataSpec",
    "DomainSpec",
    "EarlyStoppingSpec",
    "EvaluationSpec",
    "HeadSpec",
    "MixingSpec",
    "ModelSpec",
    "MultiTaskRecipe",
    "OptimizerSpec",
    "PublishSpec",
    "RatesSpec",
    "Recipe",
    "ScheduleSpec",
    "SchedulesSpec",
    "SingleTaskRecipe",
    "SpeedSpec",
    "SplitSpec",
    "StageSettings",
    "StageSpec",
    "StrategySpec",
    "TaskSpec",
    "dump_recipe",
    "json_schema",
    "load_recipe",
    "parse_recipe",
    "resolve_paths",
    "shipped_recipes",
]
