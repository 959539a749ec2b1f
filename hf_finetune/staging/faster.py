"""How a stage computes: in which way, what of it only once. Decided once; a stage that is resumed goes on with that."""

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

from hf_finetune.files import replacing
from hf_finetune.plan.stages import StagePlan
from hf_finetune.processes import first_ones, is_sharded
from hf_finetune.recipe.schema import SpeedSpec, StageSpec
from hf_finetune.speed.auto import Choice, choose_way
from hf_finetune.speed.cut import NoCutError
from hf_finetune.speed.kept import cache_folder
from hf_finetune.speed.prefix_cache import CacheReport, CacheSettings, PrefixCache, cache_prefix
from hf_finetune.speed.ways import DTYPES, LAYOUTS, Way, list_ways

__all__ = ["Faster", "make_faster"]

logger = logging.getLogger(__name__)

RECORD = "speed.json"
NOTES = "speed.json"
"""In the folder of all caches: what was measured in earlier runs."""


@dataclass(frozen=True)
class Faster:
    """What was decided for a stage.

    Attributes:
        way: Precision, memory layout and compilation.
        cache: The examples behind the frozen prefix; None if it is computed in every epoch.
        report: What came of the cache.
        views: Number of versions of the training examples that epochs cycle through; None if each has its own.
    """

    way: Way
    cache: PrefixCache | None
    report: CacheReport
    views: int | None


def make_faster(
    model: PreTrainedModel,
    stage: StageSpec,
    planned: StagePlan,
    *,
    folder: Path,
    train: Any,
    validation: Any,
    collate: Any,
    loss: Callable[..., torch.Tensor],
    speed: SpeedSpec,
    workers: int,
    settings: CacheSettings | None,
    resume: bool,
) -> Faster:
    """Choose how a stage computes, and compute its frozen prefix. The model is laid out so.

    Args:
        model: Frozen but for what the stage trains.
        stage: The stage of the recipe.
        planned: What it trains.
        folder: The stage's folder, in which the decision is kept.
        train: Training examples.
        validation: Validation examples, or None.
        collate: Makes a batch.
        loss: Gives the loss from outputs and labels.
        speed: What the recipe says of it.
        workers: Data loader processes.
        settings: Where to keep what the prefix gives; None computes it in every epoch.
        resume: Whether to go on as decided before.
    """
    state = PartialState()
    asked = speed.model_dump(mode="json")
    decided = first_ones(state, lambda: _read(folder / RECORD, asked) if resume else None)
    unused = CacheReport(False, "it is switched off")
    if len(planned.trainable) == sum(1 for _ in model.parameters()):
        settings, unused = None, CacheReport(False, "nothing is frozen")
    views = None
    if decided is not None:
        way, views = Way(**decided["way"]), decided["views"]
        unused = CacheReport(False, decided["reason"])
        settings = replace(settings, views=views, epochs=None) if settings and views else None
    else:
        way = _choose(model, stage, planned, train, validation, collate, loss, speed, settings, state)
    model.to(memory_format=LAYOUTS[way.memory_format])
    cache, report = None, unused
    if settings is not None:
        cache, report = _cached(
            model, stage, planned, train, validation, collate, way, workers, settings, state
        )
        views = report.views if cache is not None else views
    if decided is None and state.is_main_process:
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(folder / RECORD) as partial:
            content = {"asked": asked, "way": asdict(way), "views": views, "reason": report.reason}
            partial.write_text(json.dumps(content), encoding="utf-8")
    return Faster(way, cache, report, views)


def _read(path: Path, asked: Mapping[str, Any]) -> dict[str, Any] | None:
    """Read what was decided, unless the recipe asks for something else by now."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) and content.get("asked") == asked else None


def _choose(
    model: PreTrainedModel,
    stage: StageSpec,
    planned: StagePlan,
    train: Any,
    validation: Any,
    collate: Any,
    loss: Callable[..., torch.Tensor],
    speed: SpeedSpec,
    settings: CacheSettings | None,
    state: PartialState,
) -> Way:
    """Give the way that the recipe sets, or the fastest one."""
    if not speed.is_measured:
        return Way(speed.precision, speed.memory_format, speed.compile)  # type: ignore[arg-type]
    cached = settings is not None and settings.pays
    only_head = cached and all(group.layers == "head" for group in planned.groups)
    steps = planned.steps or 0
    if only_head and settings is not None:
        held = len(validation) if validation is not None else 0
        steps = ceil((settings.views * len(train) + held) / stage.batch_size)

    def choose() -> Choice:
        begun = perf_counter()
        batch = collate([train[index] for index in range(min(stage.batch_size, len(train)))])
        beside = perf_counter() - begun
        batch = {name: value.to(state.device) for name, value in batch.items()}
        candidates = list_ways(
            model,
            batch,
            state.device,
            precision=speed.precision,
            memory_format=speed.memory_format,
            compile=False if speed.compile == "auto" and cached else speed.compile,
        )
        if is_sharded():
            return Choice(candidates[0], f"{candidates[0].title}: a model that is divided is not measured")
        model.to(state.device)
        return choose_way(
            model,
            batch,
            loss,
            planned.trainable,
            candidates,
            steps=steps,
            forward_only=only_head,
            beside=beside,
            notes_file=cache_folder() / NOTES,
        )

    choice: Choice = first_ones(state, choose)
    logger.info("Stage %s computes in %s.", stage.name, choice.reason)
    return choice.way


def _cached(
    model: PreTrainedModel,
    stage: StageSpec,
    planned: StagePlan,
    train: Any,
    validation: Any,
    collate: Any,
    way: Way,
    workers: int,
    settings: CacheSettings,
    state: PartialState,
) -> tuple[PrefixCache | None, CacheReport]:
    """Compute the frozen prefix once, if that is asked for and possible; say which it is."""
    try:
        if way.compile or is_sharded():
            raise NoCutError("a model that is compiled or divided is computed as a whole")
        if not settings.pays:
            raise NoCutError("each of its versions would be used once")
        made = cache_prefix(
            model,
            planned.trainable,
            train,
            validation,
            collate,
            settings,
            batch_size=stage.batch_size,
            state=state,
            workers=workers,
            autocast=DTYPES[way.precision],
        )
    except NoCutError as error:
        logger.info("Stage %s computes its frozen layers in every epoch: %s.", stage.name, error)
        return None, CacheReport(False, str(error))
    versions = "version" if made.report.views == 1 else "versions"
    logger.info(
        "Stage %s computes its frozen layers, up to %s, once: %d %s of each example, %s bytes.",
        *(stage.name, made.entry.cut.boundary, made.report.views, versions, f"{made.report.bytes:,}"),
    )
    return made, made.report
