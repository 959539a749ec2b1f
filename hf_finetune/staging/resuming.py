"""What the Trainer forgets when it resumes: how long it has waited, and where a moved run's best checkpoint is."""

from pathlib import Path
from typing import Any

from transformers import (
    EarlyStoppingCallback,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

__all__ = ["MovedCheckpoint", "ResumableEarlyStopping", "failed_evaluations"]


def failed_evaluations(state: TrainerState, args: TrainingArguments, threshold: float) -> int:
    """Count the latest evaluations without improvement, from the log alone, as ``EarlyStoppingCallback`` does.

    Args:
        state: Of a checkpoint.
        args: Name the metric and which way it is better.
        threshold: Least change that counts as improvement.
    """
    best: float | None = None
    count = 0
    for entry in state.log_history:
        value = entry.get(f"eval_{args.metric_for_best_model}")
        if value is None:
            continue
        better = best is None or (value > best if args.greater_is_better else value < best)
        improved = best is None or (better and abs(value - best) > threshold)
        count = 0 if improved else count + 1
        best = value if better else best
    return count


class ResumableEarlyStopping(EarlyStoppingCallback):
    """Early stopping that counts on where an interrupted stage was."""

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Take the count from the log."""
        super().on_train_begin(args, state, control, **kwargs)
        self.early_stopping_patience_counter = failed_evaluations(state, args, self.early_stopping_threshold)

    def had_stopped(self, state: TrainerState, args: TrainingArguments) -> bool:
        """Tell whether a stage had already been ended here when its checkpoint was written."""
        return failed_evaluations(state, args, self.early_stopping_threshold) >= self.early_stopping_patience


class MovedCheckpoint(TrainerCallback):
    """Look for the best checkpoint where the stage's folder is now: the Trainer wrote down where it was.

    Args:
        folder: The stage's folder.
    """

    def __init__(self, folder: Path):
        self.folder = folder

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Correct the path."""
        if state.best_global_step:
            state.best_model_checkpoint = str(self.folder / f"checkpoint-{state.best_global_step}")
