"""Estimated times of a run, by which its time limit is divided; from a few measured steps."""

from dataclasses import dataclass
from math import ceil
from typing import Any

from accelerate import PartialState

from hf_finetune.distributed import is_sharded
from hf_finetune.planning.stages import StagePlan
from hf_finetune.recipe.head_fit import solver_of
from hf_finetune.recipe.stage_fields import StageSpec
from hf_finetune.runs.caching import has_linear_probe
from hf_finetune.runs.estimates import time_examples, time_inference
from hf_finetune.runs.prepared import PreparedRun
from hf_finetune.runs.start import RunStart
from hf_finetune.training.rehearsal import MIN_STEPS

__all__ = ["RunCosts", "estimate_costs"]

FINISH_SECONDS = 4.0
"""Time (seconds) for the metrics, the figures and the report, rounded up from 3 on a CPU core."""
SAVE_SECONDS = 3e-8
"""Time (seconds) per parameter for saving and loading the model."""
FIT_SECONDS = 1.2e-7
"""Time (seconds) of a solver per training example and weight of the head, measured on a CPU core."""
EVALUATIONS = 2
"""Evaluations of the shortest stage: that of its initial weights, and one at its end."""


@dataclass(frozen=True)
class RunCosts:
    """Estimated times of a run, in seconds.

    Attributes:
        stages: Duration of each stage with its evaluations, an upper bound.
        shortest: Shortest possible duration of each stage: its first steps with the evaluations before and after them,
            or the fit of its head.
        finish: Evaluation of the finished model, without the linear probe.
        prediction: Part of ``finish`` that the model predicts.
        evaluation: Evaluation of a stage; 0 without a validation split.
        probe: Linear probe; 0 if the run has none.
        pretraining: Pretraining before the first stage; 0 if the run has none, or if it is done.
    """

    stages: tuple[float, ...]
    shortest: tuple[float, ...]
    finish: float
    prediction: float = 0.0
    evaluation: float = 0.0
    probe: float = 0.0
    pretraining: float = 0.0


def estimate_costs(prepared: PreparedRun, start: RunStart, state: PartialState) -> RunCosts:
    """Return the estimated times of a run; the weights of the model do not change.

    Args:
        prepared: Checked run.
        start: Inputs of the first stage.
        state: State of the process.
    """
    recipe, plan, inputs, model = prepared.recipe, prepared.plan, start.inputs, start.built.model
    if not is_sharded():
        model.to(state.device)
    train, inference = time_examples(model, plan.stages, recipe, inputs), time_inference(model, inputs)
    model.cpu()
    validation: Any = inputs.validation
    evaluation = inference * (0 if validation is None else len(validation)) / state.num_processes
    head = sum(item.size for item in plan.layout.parameters if item.group == plan.layout.head_group)
    fit = FIT_SECONDS * head * len(inputs.train)
    durations = [
        _fit_seconds(stage, len(inputs.train) * seconds + fit, evaluation)
        if solver_of(spec)
        else _step_seconds(spec, stage, seconds, evaluation)
        for spec, stage, seconds in zip(recipe.stages, plan.stages, train, strict=True)
    ]
    tasks = prepared.tasks.values()
    prediction = inference * sum(len(part) for task in tasks for part in _held_out(task))
    probed = [task for task in tasks if has_linear_probe(task)]
    features = sum(len(task.data.train) + len(task.data.test or ()) for task in probed)
    return RunCosts(
        tuple(longest for longest, _ in durations),
        tuple(shortest for _, shortest in durations),
        FINISH_SECONDS + SAVE_SECONDS * plan.layout.size + prediction,
        prediction=prediction,
        evaluation=evaluation,
        probe=inference * features + fit * len(probed),
        pretraining=_pretraining_seconds(start, max(train)),
    )


def _fit_seconds(plan: StagePlan, view: float, evaluation: float) -> tuple[float, float]:
    """Return the duration of a stage that fits its head, twice; ``view`` is the time of each view of the examples."""
    seconds = (plan.epochs or 1.0) * view + EVALUATIONS * evaluation
    return seconds, seconds


def _step_seconds(spec: StageSpec, plan: StagePlan, example: float, evaluation: float) -> tuple[float, float]:
    """Return the duration of a stage and its shortest one, from the times of an example and of an evaluation."""
    step = example * spec.batch_size * spec.accumulation
    longest = (plan.steps or 0) * step + (1 + ceil(plan.epochs or 1.0)) * evaluation
    return longest, (MIN_STEPS + 1) * step + EVALUATIONS * evaluation


def _held_out(task: PreparedRun) -> list[Any]:
    """Return the splits on which the finished model is evaluated."""
    return [split for split in (task.data.validation, task.data.test) if split is not None]


def _pretraining_seconds(start: RunStart, example: float) -> float:
    """Return the estimated duration of the pretraining; ``example`` is the time of an example in the slowest stage."""
    if start.pretraining is None:
        return 0.0
    spec, plan = start.pretraining.stage.spec, start.pretraining.stage.plan
    return (plan.steps or 0) * spec.batch_size * example
