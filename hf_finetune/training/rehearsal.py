"""Rehearsal of a stage: its first steps, an evaluation and a checkpoint are timed, on a copy of the model."""

import logging
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from statistics import mean
from time import perf_counter
from typing import Any

from accelerate import PartialState
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from hf_finetune.planning.time_limit import StageTimes
from hf_finetune.training.callbacks import any_process

__all__ = ["MIN_STEPS", "rehearse", "rehearsed_steps"]

MIN_STEPS, MAX_STEPS = 4, 50
"""Number of steps of a rehearsal. The first one is not counted, because the first use of each kernel is slower."""
MAX_SHARE = 0.05
"""Fraction of the steps of a stage that its rehearsal takes, unless that is less than ``MIN_STEPS``."""
FOLDER = ".rehearsal.part"
"""Folder in that of the stage; what a killed process leaves of it is removed when the run is resumed."""


def rehearsed_steps(planned: int) -> int:
    """Return the maximum number of steps of a rehearsal.

    Args:
        planned: Number of steps of the stage.
    """
    return min(MAX_STEPS, max(MIN_STEPS, int(MAX_SHARE * planned)))


def rehearse(
    train: Callable[[Path, TrainerCallback], None],
    folder: Path,
    seconds: float,
    evaluates: bool,
    now: Callable[[], float] = perf_counter,
) -> StageTimes:
    """Train the first steps of a stage, and measure its times.

    Args:
        train: Function that trains a copy of the stage's model in a folder, for ``rehearsed_steps``, with the callback.
            It evaluates the model only at the end.
        folder: Folder of the stage.
        seconds: Time after which the rehearsal takes no further steps.
        evaluates: Whether the stage also evaluates the model before its first step.
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
    return timer.times(start, end, evaluates)


class _Timer(TrainerCallback):
    """Callback that times the steps and the evaluation, and ends the training early if the steps are slow.

    Times are taken from one step's end to the next: the batch is drawn before a step begins, and the loss is read,
    which waits for the device, after its end.
    """

    def __init__(self, seconds: float, now: Callable[[], float]):
        self.seconds, self.now = seconds, now
        self.step_ends: list[float] = []
        self.began = self.trained = self.saved = 0.0

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
        self.trained = self.saved = self.now()
        control.should_training_stop = True

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.saved = self.now()

    def times(self, start: float, end: float, evaluates: bool) -> StageTimes:
        """Return the times of the stage, which begins like the rehearsal."""
        ends = self.step_ends
        first = ends[0] - self.began
        step = mean(later - earlier for earlier, later in pairwise(ends)) if ends[1:] else first
        evaluation = self.saved - self.trained
        before = self.began - start + max(0.0, first - step)
        return StageTimes(before + (evaluation if evaluates else 0.0), step, evaluation, end - self.saved)


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
