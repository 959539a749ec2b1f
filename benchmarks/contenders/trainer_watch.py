"""The watch of a contender that trains with a Trainer of transformers, or one derived from it."""

from typing import Any

import numpy as np
from transformers import TrainerCallback

from benchmarks.watch import Watch

__all__ = ["WatchCallback", "accuracy"]


class WatchCallback(TrainerCallback):
    """Note each evaluation, and the end of each training.

    Args:
        watch: Where to.
    """

    def __init__(self, watch: Watch):
        self.watch = watch

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any = None, **kwargs: Any) -> None:
        """Note the accuracy."""
        self.watch.evaluated(metrics["eval_accuracy"])

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Note the time."""
        self.watch.stop()


def accuracy(prediction: Any) -> dict[str, float]:
    """Give the share of right answers, as ``compute_metrics`` of a Trainer does."""
    logits = prediction.predictions
    logits = logits[0] if isinstance(logits, tuple) else logits
    return {"accuracy": float((np.argmax(logits, axis=-1) == prediction.label_ids).mean())}
