"""State that the Trainer loses at a resume: the patience count, and the best checkpoint's path after a move."""

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
    """Return the number of latest evaluations without improvement, as ``EarlyStoppingCallback`` counts them.

    They are counted from the log alone. The initial evaluation counts as the first best. While the
    metric is undefined (nan), a lower validation loss is an improvement.

    Args:
        state: State of the Trainer, or of a checkpoint.
        args: Arguments with the metric and its direction.
        threshold: Change of the metric that must be exceeded to count as an improvement.
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
    """Early stopping that derives its count from the log, so that a resumed stage continues it."""

    def check_metric_value(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, metric_value: Any
    ) -> None:
        """Update the count of evaluations without improvement; the log already holds the latest evaluation."""
        self.early_stopping_patience_counter = failed_evaluations(state, args, self.early_stopping_threshold)

    def had_stopped(self, state: TrainerState, args: TrainingArguments) -> bool:
        """Return whether early stopping had already ended the stage when its checkpoint was written.

        Args:
            state: State of the Trainer in the checkpoint.
            args: Arguments of the Trainer.
        """
        return failed_evaluations(state, args, self.early_stopping_threshold) >= self.early_stopping_patience


class MovedCheckpoint(TrainerCallback):
    """Callback that corrects the best checkpoint's path if the run directory was moved: the Trainer saves the old path.

    Args:
        folder: Current folder of the stage.
    """

    def __init__(self, folder: Path):
        self.folder = folder

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Set the path of the best checkpoint to the current folder."""
        if state.best_global_step is not None:
            state.best_model_checkpoint = str(self.folder / f"checkpoint-{state.best_global_step}")
