"""Execution of a stage: execution mode and prefix cache, recorded once and reused when the stage is resumed."""

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from math import ceil
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from accelerate import PartialState
from transformers import PreTrainedModel

from hf_finetune.cache.cache_dir import cache_folder
from hf_finetune.cache.cut_point import CacheUnavailableError
from hf_finetune.cache.feature_kinds import ForwardSettings
from hf_finetune.cache.frozen_kinds import share_features
from hf_finetune.cache.micro_batches import iter_micro_batches
from hf_finetune.cache.prefix_cache import CacheReport, CacheSettings, PrefixCache, cache_prefix
from hf_finetune.distributed import broadcast_from_main, is_sharded
from hf_finetune.files import atomic_file, read_json_object
from hf_finetune.performance.autotune import Choice, choose_mode
from hf_finetune.performance.execution_modes import DTYPES, MEMORY_FORMATS, ExecutionMode, candidate_modes
from hf_finetune.planning.stages import PlannedStage
from hf_finetune.recipe.speed import SpeedSpec
from hf_finetune.tasks import Inputs
from hf_finetune.training.stage_inputs import ExecutionSettings, StageData, StageOutput

__all__ = ["StageExecution", "plan_execution"]

logger = logging.getLogger(__name__)

DECISION_FILE = "speed.json"
"""File in a stage folder that records the execution mode and the cached views."""
MEASUREMENTS_FILE = "speed.json"
"""File in the cache folder that stores the measurements of earlier runs."""


@dataclass(frozen=True)
class StageExecution:
    """Execution mode and prefix cache of a stage.

    Attributes:
        mode: Execution mode: precision, memory format and compilation.
        cache: Cached outputs of the frozen prefix for all examples; None if each epoch computes them.
        report: Report of the prefix cache; without a cache, the reason.
        views: Number of views of each training example that the epochs cycle through; None if every epoch has its own
            view.
    """

    mode: ExecutionMode
    cache: PrefixCache | None
    report: CacheReport
    views: int | None


def plan_execution(
    model: PreTrainedModel,
    stage: PlannedStage,
    data: StageData,
    loss: Callable[..., torch.Tensor],
    execution: ExecutionSettings,
    output: StageOutput,
) -> StageExecution:
    """Choose the execution mode of a stage, cache its frozen prefix if that pays, and record both in its folder.

    Args:
        model: Model whose parameters are frozen except those that the stage trains. It is converted in place
            to the memory format of the chosen mode.
        stage: Stage with its plan.
        data: Examples of the stage.
        loss: Loss function of outputs and labels.
        execution: Settings of execution mode and prefix cache.
        output: Folder of the stage. A resumed stage reuses the recorded decision, if it was made with the same speed
            settings.

    Returns:
        Execution mode, cache and the report of the cache.
    """
    state = PartialState()
    work = _StageInputs(model, stage, data, state)
    speed, settings, folder = execution.speed, execution.cache, output.folder
    requested = speed.model_dump(mode="json")
    recorded = broadcast_from_main(
        state, lambda: _read_decision(folder / DECISION_FILE, requested) if output.resume else None
    )
    report = CacheReport(False, "turned off")
    if len(stage.plan.trainable) == sum(1 for _ in model.parameters()):
        settings, report = None, CacheReport(False, "no layer is frozen")
    views = None
    if recorded is not None:
        mode, views = ExecutionMode(**recorded["way"]), recorded["views"]
        report = CacheReport(False, recorded["reason"])
        settings = replace(settings, views=views, epochs=None) if settings and views else None
    else:
        mode = _execution_mode(work, speed, settings, loss)
    model.to(memory_format=MEMORY_FORMATS[mode.memory_format])
    cache = None
    if settings is not None:
        cache, report = _build_cache(work, mode, settings)
        views = report.views if cache is not None else views
    if recorded is None and state.is_main_process:
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_file(folder / DECISION_FILE) as partial:
            content = {"asked": requested, "way": asdict(mode), "views": views, "reason": report.reason}
            partial.write_text(json.dumps(content), encoding="utf-8")
    return StageExecution(mode, cache, report, views)


@dataclass(frozen=True)
class _StageInputs:
    """Model, stage, examples and process state, as passed to ``plan_execution``."""

    model: PreTrainedModel
    stage: PlannedStage
    data: StageData
    state: PartialState


def _read_decision(path: Path, requested: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the recorded decision; None if there is none or the recipe's speed settings have changed since."""
    content = read_json_object(path)
    return content if content.get("asked") == requested else None


def _execution_mode(
    work: _StageInputs, speed: SpeedSpec, settings: CacheSettings | None, loss: Callable[..., torch.Tensor]
) -> ExecutionMode:
    """Return the execution mode that the recipe sets, or else the fastest one by measurement."""
    if not speed.is_measured:
        return ExecutionMode(speed.precision, speed.memory_format, speed.compile)  # type: ignore[arg-type]
    plan, data = work.stage.plan, work.data
    cached = settings is not None and not settings.reason_not_to_cache
    only_head = cached and all(group.layers == "head" for group in plan.groups)
    steps = plan.steps or 0
    if only_head and settings is not None:
        train: Any = data.train
        validation: Any = data.validation
        validation_examples = len(validation) if validation is not None else 0
        steps = ceil((settings.views * len(train) + validation_examples) / work.stage.spec.batch_size)
    if speed.compile == "auto" and cached:
        speed = speed.model_copy(update={"compile": False})
    choice: Choice = broadcast_from_main(
        work.state, lambda: _measure_modes(work, speed, loss, steps, only_head)
    )
    logger.info("Stage %s: execution mode %s.", work.stage.spec.name, choice.reason)
    return choice.mode


def _measure_modes(
    work: _StageInputs, speed: SpeedSpec, loss: Callable[..., torch.Tensor], steps: int, only_head: bool
) -> Choice:
    """Return the fastest execution mode for the first batch; for ``only_head``, of the frozen layers."""
    train: Any = work.data.train
    device = work.state.device
    start = perf_counter()
    examples = [train[index] for index in range(min(work.stage.spec.batch_size, len(train)))]
    batch: Any = work.data.collate(examples)
    collate_seconds = perf_counter() - start
    batch = {name: value.to(device) for name, value in batch.items()}
    micro_batches = 1
    if only_head:  # the cache computes the frozen layers in micro-batches of this size
        full_size, batch = len(batch["labels"]), next(iter_micro_batches(batch, device))
        micro_batches = ceil(full_size / len(batch["labels"]))
    candidates = candidate_modes(
        work.model,
        batch,
        device,
        precision=speed.precision,
        memory_format=speed.memory_format,
        compile=speed.compile,
    )
    if is_sharded():
        return Choice(candidates[0], f"{candidates[0].title}: a sharded model is not benchmarked")
    work.model.to(device)
    return choose_mode(
        work.model,
        batch,
        loss,
        work.stage.plan.trainable,
        candidates,
        steps=steps * micro_batches,
        forward_only=only_head,
        overhead_seconds=collate_seconds / micro_batches,
        notes_file=cache_folder() / MEASUREMENTS_FILE,
    )


def _build_cache(
    work: _StageInputs, mode: ExecutionMode, settings: CacheSettings
) -> tuple[PrefixCache | None, CacheReport]:
    """Compute the frozen prefix once if that is possible and pays; return None with the reason if not."""
    name, data, trainable = work.stage.spec.name, work.data, work.stage.plan.trainable
    try:
        if mode.compile or is_sharded():
            raise CacheUnavailableError("compiled and sharded models are not supported")
        if settings.reason_not_to_cache:
            raise CacheUnavailableError(settings.reason_not_to_cache)
        inputs, batch_size = Inputs(data.train, data.validation, data.collate), work.stage.spec.batch_size
        forward = ForwardSettings(batch_size, work.state.device, DTYPES[mode.precision])
        cache = cache_prefix(
            work.model,
            trainable,
            inputs,
            settings,
            state=work.state,
            workers=data.workers,
            shared=share_features(work.model, trainable, inputs, settings, forward),
            batch_size=batch_size,
            autocast=forward.autocast,
        )
    except CacheUnavailableError as error:
        logger.info("Stage %s: prefix cache not used (%s).", name, error)
        return None, CacheReport(False, str(error))
    noun = "view" if cache.report.views == 1 else "views"
    logger.info(
        "Stage %s: prefix cache of all layers before %s, %d %s of each example, %s bytes.",
        *(name, cache.runner.cut.boundary, cache.report.views, noun, f"{cache.report.bytes:,}"),
    )
    return cache, cache.report
