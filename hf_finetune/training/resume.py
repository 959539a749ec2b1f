"""What the Trainer forgets when it resumes: how long it has waited, and where a moved run's best checkpoint is."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import (
    EarlyStoppingCallback,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from hf_finetune.planning.best_epoch import evaluations, is_better, is_undefined

__all__ = ["MovedCheckpoint", "ResumableEarlyStopping", "failed_evaluations"]


def failed_evaluations(state: TrainerState, args: TrainingArguments, threshold: float) -> int:
    """Count the latest evaluations without improvement, from the log alone, as ``EarlyStoppingCallback`` does.

    The evaluation before the first step counts as one to improve on. While the metric is undefined (nan), a lower
    validation loss is an improvement.

    Args:
        state: Of a checkpoint.
        args: Name the metric and which way it is better.
        threshold: Least change that counts as improvement.
    """
    metric, greater = str(args.metric_for_best_model), bool(args.greater_is_better)
    best: Mapping[str, Any] | None = None
    count = 0
    for entry in evaluations(state.log_history):
        better = is_better(entry, best, metric, greater_is_better=greater)
        improved = better
        if best is not None and not is_undefined(best, metric) and not is_undefined(entry, metric):
            gain = entry[f"eval_{metric}"] - best[f"eval_{metric}"]
            improved = (gain if greater else -gain) > threshold
        count = 0 if improved else count + 1
        best = entry if better else best
    return count


class ResumableEarlyStopping(EarlyStoppingCallback):
    """Early stopping whose count is that of the log, so that an interrupted stage goes on with it."""

    def check_metric_value(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, metric_value: Any
    ) -> None:
        """Count the evaluations without improvement; the latest is in the log already."""
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
        if state.best_global_step is not None:
            state.best_model_checkpoint = str(self.folder / f"checkpoint-{state.best_global_step}")
