"""Rehearsal of a stage: its first steps, an evaluation and a checkpoint are timed, on a copy of the model."""

import logging
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from statistics import mean
from time import perf_counter
from typing import Any

from accelerate import PartialState
from torch.utils.data import Subset
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from hf_finetune.planning.stages import PlannedStage
from hf_finetune.planning.time_limit import StageTimes
from hf_finetune.training.callbacks import any_process
from hf_finetune.training.stage_inputs import StageData, StageEvaluation

__all__ = ["MIN_STEPS", "first_steps", "rehearse", "sample_validation"]

MIN_STEPS, MAX_STEPS = 4, 50
"""Number of steps of a rehearsal. The first one is not counted, because the first use of each kernel is slower."""
MAX_SHARE = 0.05
"""Fraction of the steps of a stage that its rehearsal takes, unless that is less than ``MIN_STEPS``."""
SAMPLED_BATCHES = 4
"""Number of validation batches, for each process, on which the evaluation of a stage is timed."""
FOLDER = ".rehearsal.part"
"""Folder in that of the stage; what a killed process leaves of it is removed when the run is resumed."""


def first_steps(stage: PlannedStage) -> PlannedStage:
    """Return a stage with the steps of its rehearsal only.

    Args:
        stage: Stage with its plan.
    """
    steps = min(MAX_STEPS, max(MIN_STEPS, int(MAX_SHARE * (stage.plan.steps or 0))))
    spec = stage.spec.model_copy(update={"epochs": None, "max_steps": steps, "early_stopping": None})
    return replace(stage, spec=spec, plan=replace(stage.plan, warmup_steps=0))


def sample_validation(data: StageData, evaluation: StageEvaluation) -> tuple[StageData, StageEvaluation]:
    """Return examples and evaluation of a rehearsal: a part of the validation split, evaluated at the end.

    The metrics of the stage are not computed, because some of them require the whole split.

    Args:
        data: Examples of the stage.
        evaluation: Evaluation settings of the stage.

    Returns:
        The same examples and settings otherwise.
    """
    metric = evaluation.best_metric
    constant = {} if metric in (None, "loss") else {str(metric): 0.0}
    evaluation = replace(evaluation, compute_metrics=lambda prediction: constant, at_start=False)
    validation: Any = data.validation
    if validation is not None:
        count = SAMPLED_BATCHES * evaluation.batch_size * PartialState().num_processes
        validation = Subset(validation, range(min(count, len(validation))))
    return replace(data, validation=validation), evaluation


def rehearse(
    train: Callable[[Path, TrainerCallback], None],
    folder: Path,
    seconds: float,
    evaluations: float,
    now: Callable[[], float] = perf_counter,
) -> StageTimes:
    """Train the first steps of a stage, and measure its times.

    Args:
        train: Function that trains a copy of the stage's model in a folder, for ``first_steps``, with the callback.
            It evaluates the model only at the end, on some of the validation examples.
        folder: Folder of the stage.
        seconds: Time after which the rehearsal takes no further steps.
        evaluations: Validation examples of the stage, divided by those on which the rehearsal evaluates the model; 0
            without a validation split.
        now: Clock (seconds).

    Returns:
        Times of the stage.
    """
    state, temporary = PartialState(), folder / FOLDER
    timer = _Timer(seconds, now)
    start = now()
    try:
        with _quiet():
            train(temporary, timer)  # the Trainer of the stage seeds all random numbers again
        end = now()
    finally:
        if state.is_main_process:
            shutil.rmtree(temporary, ignore_errors=True)
    state.wait_for_everyone()
    return timer.times(start, end, evaluations)


class _Timer(TrainerCallback):
    """Callback that times the steps and the evaluation, and ends the training early if the steps are slow.

    Times are taken from one step's end to the next: the batch is drawn before a step begins, and the loss is read,
    which waits for the device, after its end.
    """

    def __init__(self, seconds: float, now: Callable[[], float]):
        self.seconds, self.now = seconds, now
        self.step_ends: list[float] = []
        self.began = self.trained = self.evaluated = self.saved = 0.0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.began = self.now()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.step_ends.append(self.now())
        spent = self.step_ends[-1] - self.began > self.seconds
        if len(self.step_ends) >= MIN_STEPS and any_process(spent, args):
            control.should_training_stop = True

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.trained = self.evaluated = self.saved = self.now()
        control.should_training_stop = True

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.evaluated = self.now()

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.saved = self.now()

    def times(self, start: float, end: float, evaluations: float) -> StageTimes:
        """Return the times of the stage, which begins like the rehearsal; its initial evaluation is saved, too."""
        ends = self.step_ends
        first = ends[0] - self.began
        step = mean(later - earlier for earlier, later in pairwise(ends)) if ends[1:] else first
        evaluation = (self.evaluated - self.trained) * (evaluations or 1.0) + self.saved - self.evaluated
        before = self.began - start + max(0.0, first - step)
        return StageTimes(before + (evaluation if evaluations else 0.0), step, evaluation, end - self.saved)


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress the log lines of the rehearsal: those of the stage follow."""
    package = logging.getLogger("hf_finetune")
    level = package.level
    package.setLevel(logging.ERROR)
    try:
        yield
    finally:
        package.setLevel(level)
