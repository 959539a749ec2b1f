"""Stage that is trained several times from the same weights; the mean of the trained weights is kept."""

import copy
import logging
import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from accelerate import PartialState
from safetensors.torch import load_file
from transformers import PreTrainedModel, TrainerCallback

from hf_finetune.cache.prefix_cache import CacheReport
from hf_finetune.distributed import broadcast_from_main, wait_for_all
from hf_finetune.files import read_json_object
from hf_finetune.methods import Method
from hf_finetune.performance.execution_modes import ExecutionMode
from hf_finetune.planning.stages import PlannedStage
from hf_finetune.training.manifest import write_json
from hf_finetune.training.stage import evaluate_weights, train_stage
from hf_finetune.training.stage_inputs import ExecutionSettings, StageData, StageEvaluation, StageOutput
from hf_finetune.training.stage_result import StageResult
from hf_finetune.training.stage_weights import WEIGHTS, load_weights, write_weights

__all__ = ["mean_weights", "seed_folder", "train_averaged"]

logger = logging.getLogger(__name__)

RESULT_FILE = "result.json"
"""File in the folder of a training that is done."""
SEED_STEP, EPOCH_STEP = 1_000_003, 1000
"""Differences between the seeds of two trainings, and between the epochs by which augmentations are drawn."""


def seed_folder(stage: Path, number: int) -> Path:
    """Return the folder of a training of a stage: ``STAGE/seed-1``.

    Args:
        stage: Folder of the stage.
        number: Number of the training, from 1.
    """
    return stage / f"seed-{number}"


def train_averaged(
    model: PreTrainedModel,
    stage: PlannedStage,
    data: StageData,
    *,
    output: StageOutput,
    evaluation: StageEvaluation,
    execution: ExecutionSettings,
    build_methods: Callable[[PreTrainedModel], Sequence[Method]],
    callbacks: Sequence[TrainerCallback] = (),
) -> StageResult:
    """Train a stage as often as ``seeds`` says, and keep the mean of the weights; without ``seeds``, train it once.

    Trainings that are done are not repeated when the stage is resumed.

    Args:
        model: Model with the weights of the previous stage. It is changed in place.
        stage: Stage with its plan and its seed, which is that of the first training.
        data: Examples of the stage.
        output: Folder of the stage, and options of resuming and saving.
        evaluation: Evaluation settings, with the metric that selects the best checkpoint of each training.
        execution: Settings of execution mode, prefix cache and time limit.
        build_methods: Function that builds the methods of the stage for a model.
        callbacks: Additional callbacks.

    Returns:
        Result of the stage, with the validation metrics of the mean weights.

    Raises:
        InputError: As ``train_stage``.
        DivergedError: As ``train_stage``.
        KeyboardInterrupt: As ``train_stage``.

    Source: Wortsman et al. 2022, Model soups.
    """
    settings: dict[str, Any] = {"evaluation": evaluation, "execution": execution, "callbacks": callbacks}
    if stage.spec.seeds is None:
        return train_stage(model, stage, data, output=output, methods=build_methods(model), **settings)
    numbers = range(1, stage.spec.seeds + 1)
    results = []
    for number in numbers:
        folder = seed_folder(output.folder, number)
        result = broadcast_from_main(PartialState(), partial(_read_result, folder))
        if result is None:
            logger.info(f"Stage {stage.spec.name}: training {number} of {stage.spec.seeds}.")
            trained = copy.deepcopy(model)
            result = train_stage(
                trained,
                _with_seed(stage, number),
                data,
                output=replace(output, folder=folder),
                methods=build_methods(trained),
                **settings,
            )
            _finish_training(folder, result)
        results.append(result)
    files = [seed_folder(output.folder, number) / WEIGHTS for number in numbers]
    if PartialState().is_main_process:
        write_weights(mean_weights(files), output.folder / WEIGHTS)
    wait_for_all(PartialState())
    load_weights(model, output.folder / WEIGHTS)
    methods = build_methods(model)
    metrics = evaluate_weights(model, stage, data, evaluation, results[0].mode, output, methods)
    return _combined(results, metrics)


def mean_weights(files: Sequence[Path]) -> dict[str, torch.Tensor]:
    """Return the mean of weights, computed in double precision; integers are those of the first file.

    Args:
        files: Files that ``save_weights`` wrote for models of the same architecture.
    """
    first = load_file(files[0])
    sums = {name: weight.double() for name, weight in first.items() if weight.is_floating_point()}
    for file in files[1:]:
        others = load_file(file)
        for name, total in sums.items():
            total += others[name]
    return {
        name: (sums[name] / len(files)).to(weight.dtype) if name in sums else weight
        for name, weight in first.items()
    }


def _with_seed(stage: PlannedStage, number: int) -> PlannedStage:
    """Return a stage with the random choices of a training."""
    seed = (stage.seed + (number - 1) * SEED_STEP) % 2**32
    return replace(stage, seed=seed, first_epoch=(number - 1) * EPOCH_STEP)


def _finish_training(folder: Path, result: StageResult) -> None:
    """Store the result of a training, which is then not repeated, and remove its checkpoints."""
    if PartialState().is_main_process:
        content = asdict(result)
        for name in ("validation", "start", "trained"):
            content[name] = {
                key: value if math.isfinite(value) else None for key, value in content[name].items()
            }
        write_json(folder / RESULT_FILE, content)
        for checkpoint in folder.glob("checkpoint-*"):
            shutil.rmtree(checkpoint)
    wait_for_all(PartialState())


def _read_result(folder: Path) -> StageResult | None:
    """Return the result of a training; None if it is not done."""
    content = read_json_object(folder / RESULT_FILE)
    if not content:
        return None
    for name in ("validation", "start", "trained"):
        content[name] = {key: math.nan if value is None else value for key, value in content[name].items()}
    content |= {"mode": ExecutionMode(**content["mode"]), "cache": CacheReport(**content["cache"])}
    return StageResult(**content)


def _combined(results: Sequence[StageResult], validation: dict[str, float]) -> StageResult:
    """Return the result of a stage from those of its trainings and the metrics of the mean weights."""
    names = ("epochs", "steps", "best_step", "validation")
    return replace(
        results[0],
        epochs=fmean(result.epochs for result in results),
        steps=sum(result.steps for result in results),
        best_step=None,
        validation=validation,
        averaged=None,
        trained={},
        seeds=tuple({name: getattr(result, name) for name in names} for result in results),
    )
