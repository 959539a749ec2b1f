"""Multi-label data: any number of classes per example."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from hf_finetune.errors import Problem, join_quoted
from hf_finetune.targets.classes import ClassTarget
from hf_finetune.targets.decision_rule import DEFAULT_RULE, DecisionRule
from hf_finetune.targets.metric import Metric, MetricSettings
from hf_finetune.targets.names import label_text
from hf_finetune.targets.reading import LABEL_LOCATION, LabelSummary, rows_where

if TYPE_CHECKING:
    from random import Random

    import numpy as np
    import torch

    from hf_finetune.targets.top_scores import Scores

__all__ = ["MultiLabel"]


class MultiLabel(ClassTarget):
    """Any number of classes per example: a sigmoid and a binary cross-entropy for each class."""

    name = "multi_label"
    problem_type = "multi_label_classification"
    has_standard_loss = True
    accuracy_metric = "exact_match"
    default_metrics = ("f1_micro", "f1_macro", "exact_match")

    def recognizes(self, labels: LabelSummary) -> bool:
        """Return whether labels are lists."""
        return labels.are_lists

    def incompatibility(self, labels: LabelSummary) -> str | None:
        """Return ``not lists of classes`` for labels that are not lists, and for lists of fractions."""
        if not labels.are_lists or (labels.are_numbers and labels.has_fractions):
            return "not lists of classes"
        return None

    def value_problems(
        self, values: Mapping[str, Sequence[Any]], ids: Mapping[str, Sequence[str]]
    ) -> list[Problem]:
        """Return a problem for lists that repeat a class."""
        rows = rows_where(
            values, ids, lambda v: isinstance(v, list) and len(set(map(label_text, v))) < len(v)
        )
        rule = "must not repeat a class within an example"
        repair = "Name each class once. In lists of zeros and ones, write one value for each class."
        return (
            [Problem(LABEL_LOCATION, rule, f"repeated classes in {join_quoted(rows)}", repair)]
            if rows
            else []
        )

    def feature(self, label_names: Sequence[str]) -> Any:
        """Return a list of ``ClassLabel``."""
        from datasets import ClassLabel, List

        return List(ClassLabel(names=list(label_names)))

    def decode(self, label: Any, label_names: Sequence[str]) -> list[str]:
        """Return the names of the positive classes."""
        import numpy as np

        return [label_names[index] for index in np.flatnonzero(np.asarray(label) == 1).tolist()]

    @property
    def arrow_type(self) -> Any:
        """Lists of strings."""
        import pyarrow as pa

        return pa.list_(pa.string())

    def summary(self, subject: str, classes: str) -> str:
        """Return a phrase for a model with any number of classes per example."""
        return f"predicts which of {classes} {subject} belongs to (any number)"

    @cached_property
    def metrics(self) -> tuple[Metric, ...]:
        """Metrics of multi-label data."""
        from hf_finetune.targets.class_metrics import multi_label_metrics

        return tuple(multi_label_metrics())

    def named_metric(self, name: str, settings: MetricSettings) -> Metric | None:
        """Return a metric of the most probable classes, such as ``recall_at_8``, or of one, such as ``recall:soup``."""
        from hf_finetune.targets.class_metrics import class_metric
        from hf_finetune.targets.set_metrics import metric_at_k

        return metric_at_k(name) or class_metric(name, settings)

    def scores(self, logits: "np.ndarray") -> "np.ndarray":
        """Return the sigmoid [examples, classes]."""
        from scipy.special import expit

        probabilities: np.ndarray = expit(logits)
        return probabilities

    def decide(self, scores: "np.ndarray", rule: DecisionRule = DEFAULT_RULE) -> "np.ndarray":
        """Return 1 for each class that the rule selects, else 0, [examples, classes]."""
        return rule(scores)

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

    def mistakes(
        self, labels: "np.ndarray", scores: "Scores", decisions: "np.ndarray"
    ) -> tuple["np.ndarray", "np.ndarray"]:
        """Return the examples with a wrong known label, and the confidence of their most confident wrong decision."""
        import numpy as np

        from hf_finetune.targets.unknown_labels import fill_unknown

        labels, decisions = fill_unknown(labels, decisions)
        wrong = labels != decisions
        confidence = np.where(wrong, np.maximum(scores, 1 - scores), 0.0)
        return wrong.any(axis=1), confidence.max(axis=1)

    def constant_prediction(self, labels: "np.ndarray", classes: int) -> "np.ndarray":
        """Return the frequency of each class among its known labels [classes]."""
        from hf_finetune.targets.unknown_labels import mean_of_known

        return mean_of_known(labels)

    def synthetic_label(self, rng: "Random", classes: int) -> Any:
        """Return a list of one class index."""
        return [rng.randrange(classes)]

    def label_width(self, classes: int) -> int:
        """Return the number of classes."""
        return classes

    def loss_sum(
        self, logits: "torch.Tensor", labels: "torch.Tensor", valid: "torch.Tensor", smoothing: float
    ) -> "torch.Tensor":
        """Return the summed binary cross-entropy of the valid labels."""
        from torch.nn import functional

        labels = labels.where(valid, 0).to(logits)
        losses = functional.binary_cross_entropy_with_logits(logits, labels, reduction="none")
        return (losses * valid.view_as(losses)).sum()
