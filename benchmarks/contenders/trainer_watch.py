"""Recording of contenders that train with a Trainer of transformers, or a subclass."""

from typing import Any

import numpy as np
from transformers import TrainerCallback

from benchmarks.watch import Watch

__all__ = ["WatchCallback", "accuracy"]


class WatchCallback(TrainerCallback):
    """Record each evaluation, and the end of each training.

    Args:
        watch: Recorder.
    """

    def __init__(self, watch: Watch):
        self.watch = watch

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any = None, **kwargs: Any) -> None:
        """Record the accuracy."""
        self.watch.evaluated(metrics["eval_accuracy"])

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Record the time."""
        self.watch.stop()


def accuracy(prediction: Any) -> dict[str, float]:
    """Return the accuracy, as ``compute_metrics`` of a Trainer."""
    logits = prediction.predictions
    logits = logits[0] if isinstance(logits, tuple) else logits
    return {"accuracy": float((np.argmax(logits, axis=-1) == prediction.label_ids).mean())}
