"""Single-label data: exactly one class per example."""

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from hf_finetune.targets.classes import ClassTarget
from hf_finetune.targets.decision_rule import DEFAULT_RULE, DecisionRule
from hf_finetune.targets.metric import Metric, MetricSettings
from hf_finetune.targets.reading import LabelSummary, is_continuous

if TYPE_CHECKING:
    from random import Random

    import numpy as np
    import torch

    from hf_finetune.targets.top_scores import Scores

__all__ = ["SingleLabel"]


class SingleLabel(ClassTarget):
    """Exactly one class per example: softmax and cross-entropy."""

    name = "single_label"
    problem_type = "single_label_classification"
    is_exclusive = True
    has_standard_loss = True
    accuracy_metric = "accuracy"
    default_metrics = ("accuracy", "f1_macro")

    def recognizes(self, labels: LabelSummary) -> bool:
        """Return whether labels are neither lists nor continuous."""
        return not labels.are_lists and not is_continuous(labels)

    def incompatibility(self, labels: LabelSummary) -> str | None:
        """Return ``lists`` for lists."""
        return "lists" if labels.are_lists else None

    def feature(self, label_names: Sequence[str]) -> Any:
        """Return a ``ClassLabel``."""
        from datasets import ClassLabel

        return ClassLabel(names=list(label_names))

    def decode(self, label: Any, label_names: Sequence[str]) -> str:
        """Return the name of the class."""
        return label_names[int(label)]

    @property
    def arrow_type(self) -> Any:
        """Strings."""
        import pyarrow as pa

        return pa.string()

    def summary(self, subject: str, classes: str) -> str:
        """Return a phrase for a model with one class per example."""
        return f"predicts which of {classes} {subject} belongs to"

    @cached_property
    def metrics(self) -> tuple[Metric, ...]:
        """Metrics of single-label data."""
        from hf_finetune.targets.class_metrics import single_label_metrics

        return tuple(single_label_metrics())

    def named_metric(self, name: str, settings: MetricSettings) -> Metric | None:
        """Return ``top_K_accuracy``, a metric of ranks such as ``ndcg_at_10``, a per-class metric, or one of costs."""
        from hf_finetune.targets.class_metrics import single_label_metric

        return single_label_metric(name, settings)

    def scores(self, logits: "np.ndarray") -> "np.ndarray":
        """Return the softmax [examples, classes]."""
        from scipy.special import softmax

        probabilities: np.ndarray = softmax(logits, axis=-1)
        return probabilities

    def decide(self, scores: "np.ndarray", rule: DecisionRule = DEFAULT_RULE) -> "np.ndarray":
        """Return the most probable class [examples]."""
        classes: np.ndarray = scores.argmax(axis=-1)
        return classes

    def label_array(
        self, labels: Sequence[Any], classes: int, unknown: Sequence[Sequence[int]] | None = None
    ) -> "np.ndarray":
        """Return class indices [examples], int64."""
        import numpy as np

        return np.asarray(labels, dtype=np.int64)

    def mistakes(
        self, labels: "np.ndarray", scores: "Scores", decisions: "np.ndarray"
    ) -> tuple["np.ndarray", "np.ndarray"]:
        """Return the examples with a wrong class, and the probability of the decision."""
        from hf_finetune.targets.top_scores import confidences

        return labels != decisions, confidences(scores)

    def constant_prediction(self, labels: "np.ndarray", classes: int) -> "np.ndarray":
        """Return the frequency of each class [classes]."""
        import numpy as np

        frequencies: np.ndarray = np.bincount(labels, minlength=classes) / len(labels)
        return frequencies

    def label_width(self, classes: int) -> int:
        """Return 1."""
        return 1

    def synthetic_label(self, rng: "Random", classes: int) -> Any:
        """Return a class index."""
        return rng.randrange(classes)

    def loss_sum(
        self, logits: "torch.Tensor", labels: "torch.Tensor", valid: "torch.Tensor", smoothing: float
    ) -> "torch.Tensor":
        """Return the summed cross-entropy.

        Floats are class probabilities times the weight of the example [batch, classes]; integers are class indices, of
        one or of several places of each example [batch, places].
        """
        from torch.nn import functional

        from hf_finetune.targets.cross_entropy import weighted_cross_entropy

        if labels.is_floating_point():
            return weighted_cross_entropy(logits, labels.where(valid, 0).to(logits), smoothing).sum()
        logits, labels = logits.flatten(0, -2), labels.flatten()
        return functional.cross_entropy(logits, labels, reduction="sum", label_smoothing=smoothing)

    def label_weights(self, labels: "torch.Tensor", valid: "torch.Tensor") -> "torch.Tensor":
        """Return 1 for each valid label, or the sum of the weighted class probabilities, [batch]."""
        return labels.where(valid, 0.0).sum(dim=-1) if labels.is_floating_point() else valid
