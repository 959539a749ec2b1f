"""Callbacks that end the training of a trial: its time is over, or the study stops it."""

from collections.abc import Callable
from time import perf_counter
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

__all__ = ["DeadlineCallback", "EpochCallback", "StoppedError", "TimeUpError"]


class TimeUpError(Exception):
    """Raised when the time of a search is over in the middle of a training."""


class StoppedError(Exception):
    """Raised when a study stops a trial in the middle of a training."""


class DeadlineCallback(TrainerCallback):
    """Callback that ends the training when the time of the search is over.

    Raises:
        TimeUpError: At the end of a step after the deadline; on one process only.
    """

    def __init__(self, deadline: float):
        self.deadline = deadline

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Check the time."""
        if args.world_size == 1 and perf_counter() > self.deadline:
            raise TimeUpError


class EpochCallback(TrainerCallback):
    """Callback that reports the validation metric after each epoch to the study.

    Raises:
        StoppedError: If the study stops the trial.
    """

    def __init__(self, metric: str, report: Callable[[float, int], bool]):
        self.metric, self.report, self.step = metric, report, 0

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Report an evaluation after at least one step."""
        value = kwargs["metrics"].get(f"eval_{self.metric}")
        if state.global_step == 0 or value is None:
            return
        self.step += 1
        if self.report(value, self.step):
            raise StoppedError
