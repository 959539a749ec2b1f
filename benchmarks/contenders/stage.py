"""A stage of hf-finetune on a model and examples in memory: ``train_stage`` as called by ``run``."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from hf_finetune.cache.cache_dir import cache_folder
from hf_finetune.cache.prefix_cache import CacheSettings
from hf_finetune.distributed import start_processes
from hf_finetune.models.layout import read_layout
from hf_finetune.planning.stages import PlannedStage, build_plan
from hf_finetune.recipe.speed import SpeedSpec
from hf_finetune.recipe.stage_fields import StageSpec
from hf_finetune.training.stage import StageResult, train_stage
from hf_finetune.training.stage_inputs import ExecutionSettings, StageData, StageEvaluation, StageOutput

__all__ = ["collate", "run_stage"]


def run_stage(
    model: Any,
    train: Any,
    stage: dict[str, Any],
    *,
    folder: str,
    speed: dict[str, Any],
    workers: int = 0,
    seed: int = 0,
    callbacks: Sequence[TrainerCallback] = (),
) -> StageResult:
    """Train a stage without evaluation.

    Args:
        model: Model, which is trained in place.
        train: Examples as inputs of the model.
        stage: Fields of the stage as in a recipe, without the name.
        folder: Output folder.
        speed: Fields of ``speed`` as in a recipe. With ``prefix_cache``, the examples must be the same in each epoch.
        workers: Number of data loader processes.
        seed: Seed of the order of the examples.
        callbacks: Callbacks of the Trainer.
    """
    state = start_processes()
    spec = StageSpec.model_validate({"name": "stage", "best": None, **stage})
    planned = build_plan(read_layout(model), (spec,), len(train), state.num_processes).stages[0]
    settings = SpeedSpec.model_validate(speed)
    cache = None
    if settings.prefix_cache is not None:
        cache = CacheSettings(
            cache_folder(), 1, None, settings.prefix_cache.size_limit, {"train": f"benchmark-{len(train)}"}
        )
    return train_stage(
        model,
        PlannedStage(spec, planned, seed),
        StageData("single_label", train, collate, workers=workers),
        output=StageOutput(Path(folder) / "stage"),
        evaluation=StageEvaluation(64),
        execution=ExecutionSettings(settings, cache),
        callbacks=callbacks,
    )


def collate(examples: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """Return a batch of examples whose values are tensors."""
    return {name: torch.stack([each[name] for each in examples]) for name in examples[0]}
