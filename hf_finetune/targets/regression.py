"""Labels that are numbers."""

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from hf_finetune.targets.base import Target
from hf_finetune.targets.metric import Metric

if TYPE_CHECKING:
    from random import Random

    import numpy as np
    import torch

__all__ = ["Regression"]


class Regression(Target):
    """A continuous target: one output and the mean squared error."""

    name = "regression"
    problem_type = "regression"
    has_classes = False
    default_metrics = ("rmse", "mae", "r2", "spearman")
    score_dimensions = 1

    @cached_property
    def metrics(self) -> tuple[Metric, ...]:
        """Metrics of numbers."""
        from hf_finetune.targets.number_metrics import metrics_of_numbers

        return tuple(metrics_of_numbers())

    def scores(self, logits: "np.ndarray") -> "np.ndarray":
        """Return the output of each example [examples]."""
        return logits.reshape(len(logits))

    def decide(self, scores: "np.ndarray", thresholds: Sequence[float] | None = None) -> "np.ndarray":
        """Return the predictions [examples] unchanged."""
        return scores

    def label_array(
        self, labels: Sequence[Any], classes: int, unknown: Sequence[Sequence[int]] | None = None
    ) -> "np.ndarray":
        """Return the numbers [examples], float64."""
        import numpy as np

        return np.asarray(labels, dtype=np.float64)

    def made_up_label(self, chance: "Random", classes: int) -> Any:
        """Return a number in [0, 1)."""
        return chance.random()

    def loss_sum(
        self, logits: "torch.Tensor", labels: "torch.Tensor", known: "torch.Tensor", smoothing: float
    ) -> "torch.Tensor":
        """Return the summed squared error of the known labels."""
        from torch.nn import functional

        labels = labels.where(known, 0).to(logits)
        losses = functional.mse_loss(logits.view(-1), labels.view(-1), reduction="none")
        return (losses * known.view_as(losses)).sum()
