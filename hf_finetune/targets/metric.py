"""Metrics of predictions: their interface."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

__all__ = ["NO_SETTINGS", "Compute", "Metric", "MetricSettings"]

Compute = Callable[["np.ndarray", "np.ndarray", Any], float]
"""Function of labels, decisions and scores, in the forms that a target gives them, that returns the value."""


@dataclass(frozen=True)
class MetricSettings:
    """Classes and costs, which some metrics need in addition to labels and scores.

    Attributes:
        label_names: Class names in the order of the model, for per-class metrics.
        costs: ``evaluation.costs`` of the recipe; empty without any.
    """

    label_names: tuple[str, ...] = ()
    costs: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    def cost_matrix(self) -> "np.ndarray":
        """Return the costs [classes, classes], indexed by true class and decision."""
        from hf_finetune.targets.costs import cost_matrix

        return cost_matrix(self.costs, self.label_names)


NO_SETTINGS = MetricSettings()


@dataclass(frozen=True)
class Metric:
    """Metric of one kind of labels.

    Attributes:
        name: Name in recipes and in metrics.json.
        compute: Function of labels, decisions and scores that returns the value.
        greater_is_better: Whether greater values are better.
        fewest_classes: Number of classes below which it is meaningless.
        most_classes: Number of classes above which it is too slow to be computed by default; None for no limit.
        on_request: Whether it is computed only if a recipe or a command requests it.
        needs_all_scores: Whether it needs the probabilities of all classes, not only the highest ones.
    """

    name: str
    compute: Compute
    greater_is_better: bool = True
    fewest_classes: int = 1
    most_classes: int | None = None
    on_request: bool = False
    needs_all_scores: bool = False
