"""Clock of a run: the time spent so far, over all resumes, in a file of the run directory."""

from collections.abc import Callable
from pathlib import Path
from time import perf_counter, time
from typing import Any

import psutil
from accelerate import PartialState
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from hf_finetune.files import read_json_object
from hf_finetune.training.manifest import write_json

__all__ = ["RunClock", "process_start"]

CLOCK_FILE = "time.json"
"""File in the run directory with the time spent, in seconds."""
SAVE_SECONDS = 1.0
"""Minimum time (seconds) between two updates of the file while a stage trains."""


def process_start() -> float:
    """Return the start of this process, on the clock of ``perf_counter`` (seconds)."""
    return perf_counter() - (time() - psutil.Process().create_time())


class RunClock(TrainerCallback):
    """Clock of a run, and callback that saves it while a stage trains.

    A process that is killed loses at most the time since the last step. Time between two attempts does not count.

    Args:
        folder: Run directory, in which an earlier attempt may have saved its time.
        started: Start of this attempt, on the clock ``now``; None for the time of this call.
        now: Clock (seconds).
    """

    def __init__(self, folder: Path, started: float | None = None, now: Callable[[], float] = perf_counter):
        self.file, self.now = folder / CLOCK_FILE, now
        self.started = now() if started is None else started
        seconds = read_json_object(self.file).get("seconds", 0.0)
        self.earlier = float(seconds) if isinstance(seconds, int | float) else 0.0
        self.saved_at = self.started

    def spent(self) -> float:
        """Return the time of all attempts so far, in seconds."""
        return self.earlier + self.now() - self.started

    def save(self) -> None:
        """Write the time spent to the run directory, on the main process."""
        self.saved_at = self.now()
        if PartialState().is_main_process:
            write_json(self.file, {"seconds": round(self.spent(), 3)})

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Save the time, at most once in ``SAVE_SECONDS``."""
        if self.now() - self.saved_at >= SAVE_SECONDS:
            self.save()
