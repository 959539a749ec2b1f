"""Regression: continuous labels."""

import math
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from hf_finetune.errors import Problem, join_quoted
from hf_finetune.targets.base import Target
from hf_finetune.targets.decision_rule import DEFAULT_RULE, DecisionRule
from hf_finetune.targets.metric import Metric
from hf_finetune.targets.reading import LABEL_LOCATION, LabelSummary, is_continuous, rows_where

if TYPE_CHECKING:
    from random import Random

    import numpy as np
    import torch

    from hf_finetune.targets.top_scores import Scores

__all__ = ["Regression"]

_IGNORED_BY_TRAINER = -100


class Regression(Target):
    """A continuous target: one output and the mean squared error."""

    name = "regression"
    problem_type = "regression"
    is_numeric = True
    has_standard_loss = True
    default_metrics = ("rmse", "mae", "r2", "spearman")
    constant_baseline = "mean baseline"
    score_dimensions = 1

    def recognizes(self, labels: LabelSummary) -> bool:
        """Return whether labels are continuous."""
        return is_continuous(labels)

    def incompatibility(self, labels: LabelSummary) -> str | None:
        """Return ``not numbers`` or ``lists`` for labels that are not numbers."""
        if labels.are_lists:
            return "lists"
        return None if labels.are_numbers else "not numbers"

    def label_type_notes(self, labels: LabelSummary, *, inferred: bool) -> tuple[str, ...]:
        """Return a note if the label type was inferred."""
        note = "The labels are numbers with fractions or many distinct values, so the task is regression."
        return (note,) if inferred else ()

    def value_problems(
        self, values: Mapping[str, Sequence[Any]], ids: Mapping[str, Sequence[str]]
    ) -> list[Problem]:
        """Return a problem for infinite numbers, and one for -100."""
        infinite = rows_where(values, ids, lambda v: v is not None and math.isinf(v))
        ignored = rows_where(values, ids, lambda v: v == _IGNORED_BY_TRAINER)
        problems = []
        if infinite:
            problems.append(
                Problem(
                    LABEL_LOCATION, "must contain only finite numbers", f"infinity in {join_quoted(infinite)}"
                )
            )
        if ignored:
            repair = "Shift or scale the labels: the Trainer ignores examples with the label -100."
            problems.append(
                Problem(LABEL_LOCATION, "must not contain -100", f"-100 in {join_quoted(ignored)}", repair)
            )
        return problems

    def output_names(self, labels: Iterable[Any], declared: Sequence[str] | None) -> tuple[str, ...]:
        """Return ``label``."""
        return ("label",)

    def encode(self, label: Any, indices: Mapping[str, int]) -> Any:
        """Return the number."""
        return float(label)

    def feature(self, label_names: Sequence[str]) -> Any:
        """Return a float."""
        from datasets import Value

        return Value("float32")

    def decode(self, label: Any, label_names: Sequence[str]) -> float:
        """Return the number."""
        return float(label)

    def describe_labels(self, labels: Sequence[Any], label_names: Sequence[str]) -> str:
        """Return the range of the numbers and their mean."""
        return f"numbers from {min(labels):.4g} to {max(labels):.4g}, mean {sum(labels) / len(labels):.4g}"

    @property
    def arrow_type(self) -> Any:
        """Floats."""
        import pyarrow as pa

        return pa.float64()

    def summary(self, subject: str, classes: str) -> str:
        """Return a phrase for a model that predicts a number."""
        return f"predicts a number for {subject}"

    @cached_property
    def metrics(self) -> tuple[Metric, ...]:
        """Regression metrics."""
        from hf_finetune.targets.regression_metrics import regression_metrics

        return tuple(regression_metrics())

    def scores(self, logits: "np.ndarray") -> "np.ndarray":
        """Return the output of each example [examples]."""
        return logits.reshape(len(logits))

    def decide(self, scores: "np.ndarray", rule: DecisionRule = DEFAULT_RULE) -> "np.ndarray":
        """Return the predictions [examples] unchanged."""
        return scores

    def label_array(
        self, labels: Sequence[Any], classes: int, unknown: Sequence[Sequence[int]] | None = None
    ) -> "np.ndarray":
        """Return the numbers [examples], float64."""
        import numpy as np

        return np.asarray(labels, dtype=np.float64)

    def stored_scores(self, predictions: Sequence[Any]) -> "np.ndarray":
        """Return the predictions [examples], float64."""
        import numpy as np

        return np.asarray(predictions, dtype=np.float64)

    def mistakes(
        self, labels: "np.ndarray", scores: "Scores", decisions: "np.ndarray"
    ) -> tuple["np.ndarray", "np.ndarray"]:
        """Return all examples, and their absolute errors."""
        import numpy as np

        return np.ones(len(labels), dtype=bool), np.abs(labels - scores)

    def constant_prediction(self, labels: "np.ndarray", classes: int) -> "np.ndarray":
        """Return the mean of the labels."""
        from hf_finetune.targets.unknown_labels import mean_of_known

        return mean_of_known(labels)

    def label_width(self, classes: int) -> int | None:
        """Return 1."""
        return 1

    def synthetic_label(self, rng: "Random", classes: int) -> Any:
        """Return a number in [0, 1)."""
        return rng.random()

    def loss_sum(
        self, logits: "torch.Tensor", labels: "torch.Tensor", valid: "torch.Tensor", smoothing: float
    ) -> "torch.Tensor":
        """Return the summed squared error of the valid labels."""
        from torch.nn import functional

        labels = labels.where(valid, 0).to(logits)
        losses = functional.mse_loss(logits.view(-1), labels.view(-1), reduction="none")
        return (losses * valid.view_as(losses)).sum()
