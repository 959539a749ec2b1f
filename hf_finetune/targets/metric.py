"""Metrics of predictions: their interface."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

    from hf_finetune.targets.scored_examples import ScoredExamples

__all__ = ["NO_SETTINGS", "Compute", "Metric", "MetricSettings", "PerExample", "Statistic"]

Compute = Callable[["ScoredExamples"], float]
"""Function from labels and scores to the value of a metric."""
PerExample = Callable[["ScoredExamples"], "np.ndarray"]
"""Function from labels and scores to the values [examples] whose mean is a metric."""
Statistic = Callable[["np.ndarray"], "np.ndarray"]
"""Function from counts [resamples, examples] to the metric of each resample [resamples]."""


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
    """Metric of one label type.

    A confidence interval needs the metric of many resamples of the examples, groups as a whole:

    - With ``per_example`` or ``resampled``, all resamples are computed at once.
    - With ``takes_weights``, ``compute`` is called for each resample with the original examples, and as weights the
      number of times that each was drawn.
    - Otherwise, ``compute`` is called for each resample with the drawn examples; each copy of a group has its own
      index.

    Attributes:
        name: Name in recipes and in metrics.json.
        compute: Function that returns the value.
        per_example: Function that returns the values whose mean is the metric; None if it is no such mean.
        resampled: Function that returns a function from counts [resamples, examples] to the metric of each resample
            [resamples]; None if there is no fast one.
        takes_weights: Whether ``compute`` takes the weights of the examples into account.
        is_fraction: Whether the metric is a fraction of the examples: ``per_example`` returns zeros and ones.
        greater_is_better: Whether greater values are better.
        min_classes: Number of classes below which it is meaningless.
        max_default_classes: Number of classes above which it is too slow to be computed by default; None for no limit.
        on_request: Whether it is computed only if a recipe or a command requests it.
        needs_all_scores: Whether it needs the probabilities of all classes, not only the highest ones.
    """

    name: str
    compute: Compute
    per_example: PerExample | None = None
    resampled: Callable[["ScoredExamples"], Statistic] | None = None
    takes_weights: bool = False
    is_fraction: bool = False
    greater_is_better: bool = True
    min_classes: int = 1
    max_default_classes: int | None = None
    on_request: bool = False
    needs_all_scores: bool = False

    @property
    def is_fast(self) -> bool:
        """Whether it is computed for many resamples at once, rather than one resample at a time."""
        return self.per_example is not None or self.resampled is not None
