"""Labels that are any number of classes each."""

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from hf_finetune.targets.base import Target
from hf_finetune.targets.metric import Metric, MetricSettings

if TYPE_CHECKING:
    from random import Random

    import numpy as np
    import torch

__all__ = ["MultiLabel"]

THRESHOLD = 0.5


class MultiLabel(Target):
    """Any number of classes per example: a sigmoid and a binary cross-entropy for each class."""

    name = "multi_label"
    problem_type = "multi_label_classification"
    default_metrics = ("f1_micro", "f1_macro", "exact_match")

    @cached_property
    def metrics(self) -> tuple[Metric, ...]:
        """Metrics of any number of classes."""
        from hf_finetune.targets.class_metrics import metrics_of_many_classes

        return tuple(metrics_of_many_classes())

    def named_metric(self, name: str, settings: MetricSettings) -> Metric | None:
        """Return a per-class metric such as ``recall:soup``."""
        from hf_finetune.targets.class_metrics import class_metric

        return class_metric(name, settings)

    def scores(self, logits: "np.ndarray") -> "np.ndarray":
        """Return the sigmoid [examples, classes]."""
        from scipy.special import expit

        probabilities: np.ndarray = expit(logits)
        return probabilities

    def decide(self, scores: "np.ndarray", thresholds: Sequence[float] | None = None) -> "np.ndarray":
        """Return 1 for each class whose probability reaches its threshold, else 0, [examples, classes]."""
        import numpy as np

        decisions: np.ndarray = scores >= (THRESHOLD if thresholds is None else np.asarray(thresholds))
        return decisions.astype(np.int64)

    def label_array(
        self, labels: Sequence[Any], classes: int, unknown: Sequence[Sequence[int]] | None = None
    ) -> "np.ndarray":
        """Return zeros and ones [examples, classes], int64; or float64 with nan where labels are unknown."""
        import numpy as np

        has_unknown = unknown is not None and any(unknown)
        rows = np.zeros((len(labels), classes), dtype=np.float64 if has_unknown else np.int64)
        for row, indices in enumerate(labels):
            rows[row, list(indices)] = 1
        for row, indices in enumerate(unknown or () if has_unknown else ()):
            rows[row, list(indices)] = np.nan
        return rows

    def made_up_label(self, chance: "Random", classes: int) -> Any:
        """Return a list of one class index."""
        return [chance.randrange(classes)]

    def label_width(self, classes: int) -> int:
        """Return the number of classes."""
        return classes

    def loss_sum(
        self, logits: "torch.Tensor", labels: "torch.Tensor", known: "torch.Tensor", smoothing: float
    ) -> "torch.Tensor":
        """Return the summed binary cross-entropy of the known labels."""
        from torch.nn import functional

        labels = labels.where(known, 0).to(logits)
        losses = functional.binary_cross_entropy_with_logits(logits, labels, reduction="none")
        return (losses * known.view_as(losses)).sum()
