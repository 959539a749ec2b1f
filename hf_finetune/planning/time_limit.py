"""Division of a time limit among the stages of a run, and stages that are laid out for the steps that fit."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil

from hf_finetune.planning.stages import PlannedStage

__all__ = ["StageTimes", "limit_steps", "stage_share", "steps_that_fit"]

MARGIN = 0.03
"""Fraction of a stage's time that its plan leaves free, because later steps may be slower than the measured ones."""


@dataclass(frozen=True)
class StageTimes:
    """Measured times of a stage, in seconds.

    Attributes:
        start: From the start to the first step, with the initial evaluation and the first use of each kernel.
        step: One optimizer step.
        evaluation: Evaluation and checkpoint after an epoch.
        end: From the last checkpoint to the end: the best weights are restored and written.
    """

    start: float
    step: float
    evaluation: float
    end: float


def stage_share(seconds: float, costs: Sequence[float]) -> float:
    """Return the time of the first of several stages.

    If the time suffices for all stages, it is divided in proportion to their costs. Otherwise no stage gets more than
    it needs, and those that need more than the others have equal parts (max-min fairness): a cheap stage, such as one
    that trains only the head, is then not cut because an expensive one follows.

    Args:
        seconds: Time of all of them (seconds).
        costs: Estimated duration of each stage (seconds).
    """
    total = sum(costs)
    if total <= 0:
        return seconds / len(costs)
    if total <= seconds:
        return seconds * costs[0] / total
    rest, count = seconds, len(costs)
    for cost in sorted(costs):
        if cost > rest / count:
            return min(costs[0], rest / count)
        rest, count = rest - cost, count - 1
    return costs[0]


def steps_that_fit(seconds: float, times: StageTimes, per_epoch: int) -> int:
    """Return the number of optimizer steps of a stage that fit, with an evaluation after each epoch and at the end.

    Args:
        seconds: Time of the stage.
        times: Its measured times.
        per_epoch: Optimizer steps of an epoch.

    Returns:
        Number of steps, at least 1.
    """
    available = (1 - MARGIN) * seconds - times.start - times.end
    epoch = per_epoch * times.step + times.evaluation
    epochs = max(0, int(available // epoch))
    steps = int((available - epochs * epoch - times.evaluation) // times.step)
    return max(1, epochs * per_epoch + max(0, steps))


def limit_steps(stage: PlannedStage, steps: int, per_epoch: int) -> PlannedStage:
    """Return a stage laid out for fewer steps: its schedule ends at the last one, and its warmup shrinks with it.

    Args:
        stage: Stage with its plan.
        steps: New number of optimizer steps.
        per_epoch: Optimizer steps of an epoch.
    """
    plan, planned = stage.plan, stage.plan.steps or steps
    warmup = plan.warmup_steps and ceil(plan.warmup_steps * min(1.0, steps / planned))
    spec = stage.spec.model_copy(update={"epochs": None, "max_steps": steps})
    plan = replace(plan, steps=steps, epochs=steps / per_epoch, warmup_steps=warmup)
    return replace(stage, spec=spec, plan=plan)
