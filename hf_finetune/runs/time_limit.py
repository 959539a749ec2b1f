"""Time limit of a run: its division among the stages, and the reserve for the evaluation of the model."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path

from accelerate import PartialState
from transformers import PreTrainedModel

from hf_finetune.cache.prefix_cache import CacheSettings
from hf_finetune.distributed import broadcast_from_main
from hf_finetune.errors import InputError, Problem, format_seconds
from hf_finetune.fields.durations import format_duration
from hf_finetune.methods import Method
from hf_finetune.planning.time_limit import stage_share
from hf_finetune.runs.clock import RunClock
from hf_finetune.runs.prepared import PreparedRun
from hf_finetune.runs.run_costs import RunCosts, estimate_costs
from hf_finetune.runs.start import RunStart
from hf_finetune.training.manifest import Manifest
from hf_finetune.training.stage_limit import StageLimit

__all__ = ["PRETRAINING_INDEX", "RunLimit", "limit_cache", "limit_run"]

logger = logging.getLogger(__name__)

PRETRAINING_INDEX = -1
"""Index of the pretraining before the first stage."""
MAX_PROBE_SHARE = 0.1
"""Fraction of the limit that the linear probe may take; otherwise it is not fitted."""
MAX_CACHE_SHARE = 0.5
"""Fraction of a stage's time in which the outputs of its frozen layers may be computed."""


@dataclass(frozen=True)
class RunLimit:
    """Time limit of a run.

    Attributes:
        seconds: Time of the run (seconds), without the folds of a cross-validation.
        clock: Clock of the run.
        costs: Estimated times of the run.
    """

    seconds: float
    clock: RunClock
    costs: RunCosts

    def stage(self, index: int, build_methods: Callable[[PreTrainedModel], Sequence[Method]]) -> StageLimit:
        """Return the limit of a stage that starts now.

        It gets its share of the time left, see ``stage_share``, so that later stages get the time that it does not
        need.

        Args:
            index: Index of the stage, or ``PRETRAINING_INDEX``.
            build_methods: Function that builds the methods of the stage for a copy of its model.
        """
        self.clock.save()
        costs = self.costs
        left = self.seconds - costs.finish - costs.probe - self.clock.spent()
        end = self.clock.spent() + stage_share(left, (costs.pretraining, *costs.stages)[index + 1 :])

        def left_for_stage() -> float:
            # if evaluations take longer than estimated, that of the finished model will, too
            slower = limit.times.evaluation / costs.evaluation - 1 if costs.evaluation else 0.0
            return end - self.clock.spent() - max(0.0, slower) * costs.prediction

        limit = StageLimit(left_for_stage, build_methods)
        return limit


def _without_probe(prepared: PreparedRun) -> PreparedRun:
    """Return the run without the linear probe, for which the time limit leaves no time."""
    evaluation = prepared.recipe.evaluation.model_copy(update={"linear_probe": None})
    joined = {name: _without_probe(task) for name, task in prepared.joined.items()}
    recipe = prepared.recipe.model_copy(update={"evaluation": evaluation})
    return replace(prepared, recipe=recipe, joined=joined)


def limit_cache(
    cache: CacheSettings | None, limit: StageLimit | None, state: PartialState
) -> CacheSettings | None:
    """Return the settings of a stage's prefix cache, with the time in which it may be computed.

    Args:
        cache: Settings of the cache.
        limit: Limit of the stage.
        state: State of the process; the processes share the work.
    """
    if cache is None or limit is None:
        return cache
    seconds = broadcast_from_main(state, limit.left) * MAX_CACHE_SHARE * state.num_processes
    return replace(cache, seconds_limit=max(0.0, seconds))


def limit_run(
    prepared: PreparedRun,
    start: RunStart,
    folder: Path,
    before: Manifest | None,
    state: PartialState,
    started: float | None,
) -> tuple[PreparedRun, RunLimit | None]:
    """Return the run, and its time limit, None if its recipe sets none.

    The run has no linear probe if that would take more than ``MAX_PROBE_SHARE`` of the time. The trainings of a
    cross-validation, one for each fold and that of the run itself, have equal parts of the time.

    Args:
        prepared: Checked run.
        start: Inputs of the first stage.
        folder: Run directory.
        before: Manifest of the run that is resumed; None for a new run.
        state: State of the process; all processes call this function.
        started: Start of this attempt, as ``perf_counter`` returns it; None for the time of this call.

    Raises:
        InputError: If the time of a new run is too short.
    """
    recipe = prepared.recipe
    if recipe.limit is None:
        return prepared, None
    time = recipe.limit.time
    clock = RunClock(folder, started)
    if before is not None and not clock.earlier:  # the limit was added when the run was resumed
        clock.earlier = sum(record.seconds for record in before.stages)
    parts = 1 + (recipe.evaluation.folds or 0)
    limit = RunLimit(
        recipe.limit.seconds / parts,
        clock,
        broadcast_from_main(state, lambda: estimate_costs(prepared, start, state)),
    )
    if limit.costs.probe > MAX_PROBE_SHARE * limit.seconds:
        took = format_seconds(limit.costs.probe)
        logger.info(f"No linear probe: it would take about {took}, more than a tenth of the time limit.")
        prepared, limit = _without_probe(prepared), replace(limit, costs=replace(limit.costs, probe=0.0))
    problem = broadcast_from_main(state, lambda: _too_short(limit, time, parts))
    # a fold has the time of the first training, which was sufficient
    is_fold = any(task.data.split.fold is not None for task in recipe.by_task().values())
    if problem and before is None and not is_fold:
        raise InputError(problem)
    return prepared, limit


def _too_short(limit: RunLimit, time: str, parts: int) -> Problem | None:
    """Return the problem if the time does not suffice for the first steps of each stage."""
    shortest = sum(limit.costs.shortest)
    rest = limit.clock.spent() + limit.costs.finish + limit.costs.probe
    if rest + shortest <= limit.seconds:
        return None
    trainings = f" for each of {parts} trainings" if parts > 1 else ""
    rule = f"must be at least about {format_duration(ceil(parts * (rest + shortest)))} for this run"
    repair = (
        f"The first steps of the stages, with their evaluations, take about {format_seconds(shortest)}, loading and "
        f"the evaluation of the model about {format_seconds(rest)}{trainings}."
    )
    return Problem("limit.time", rule, time, repair)
