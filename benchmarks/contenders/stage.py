"""One stage of hf-finetune on a model and examples that lie in memory: ``train_stage`` as ``run`` calls it."""

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
from hf_finetune.recipe.schema import SpeedSpec, StageSpec
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
        model: It is changed in place.
        train: Examples as the model takes them.
        stage: The fields of the stage in a recipe, but for its name.
        folder: Where it writes.
        speed: The fields of ``speed`` in a recipe. With ``prefix_cache`` the examples are kept as they are: they may
            not change from epoch to epoch.
        workers: Data loader processes.
        seed: Of the order of the examples.
        callbacks: For the Trainer.
    """
    state = start_processes()
    spec = StageSpec.model_validate({"name": "stage", "best": None, **stage})
    planned = build_plan(read_layout(model), (spec,), len(train), state.num_processes).stages[0]
    settings = SpeedSpec.model_validate(speed)
    cache = None
    if settings.prefix_cache is not None:
        cache = CacheSettings(
            cache_folder(), 1, None, settings.prefix_cache.size_limit, f"benchmark-{len(train)}"
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
    """Make a batch of examples whose values are tensors."""
    return {name: torch.stack([each[name] for each in examples]) for name in examples[0]}
