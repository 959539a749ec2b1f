"""Interface of the kinds of labels, and their registry.

Code outside this folder asks a target for a property or calls one of its methods; it never compares its name.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from hf_finetune.fields.registry import Registry
from hf_finetune.targets.metric import Metric, MetricSettings

if TYPE_CHECKING:
    from random import Random

    import numpy as np
    import torch

__all__ = ["TARGETS", "Target"]


class Target(ABC):
    """Kind of labels.

    Attributes:
        name: Name in recipes and saved files.
        problem_type: Value of ``problem_type`` in the config of a transformers model.
        has_classes: Whether a label consists of named classes.
        is_exclusive: Whether a label is exactly one class. False without classes.
        default_metrics: Names of the metrics that are shown unless the recipe names others, the leading one first.
        score_dimensions: Number of dimensions of the scores: 2 for [examples, classes], 1 for [examples].
    """

    name: ClassVar[str]
    problem_type: ClassVar[str]
    has_classes: ClassVar[bool] = True
    is_exclusive: ClassVar[bool] = False
    default_metrics: ClassVar[tuple[str, ...]]
    score_dimensions: ClassVar[int] = 2

    @property
    def has_several_classes(self) -> bool:
        """Whether a label can be any number of classes, so that each class is a yes-or-no question."""
        return self.has_classes and not self.is_exclusive

    @property
    @abstractmethod
    def metrics(self) -> tuple[Metric, ...]:
        """Metrics that are defined for such labels, in the order in which they are shown."""

    def named_metric(self, name: str, settings: MetricSettings) -> Metric | None:
        """Return a metric whose name has a part that varies, such as ``top_3_accuracy``; None for any other name.

        Args:
            name: Name in a recipe.
            settings: Classes and costs, for the metrics that need them.
        """
        return None

    @abstractmethod
    def scores(self, logits: "np.ndarray") -> "np.ndarray":
        """Return the scores of a model.

        Args:
            logits: Logits [examples, outputs], float64.

        Returns:
            Probabilities [examples, classes], or predictions [examples].
        """

    @abstractmethod
    def decide(self, scores: "np.ndarray", thresholds: Sequence[float] | None = None) -> "np.ndarray":
        """Return the decision for each example.

        Args:
            scores: Scores, as ``scores`` returns them.
            thresholds: Decision threshold of each class, where each class is a question of its own; None is 0.5.

        Returns:
            Class indices [examples], zeros and ones [examples, classes], or predictions [examples].
        """

    @abstractmethod
    def label_array(
        self, labels: Sequence[Any], classes: int, unknown: Sequence[Sequence[int]] | None = None
    ) -> "np.ndarray":
        """Return the labels of examples as metrics take them: an array of the form that ``decide`` returns.

        Args:
            labels: Labels as a dataset stores them: class indices, lists of class indices, or numbers.
            classes: Number of classes.
            unknown: Classes of each example whose label is unknown; None if there are none.
        """

    @abstractmethod
    def made_up_label(self, chance: "Random", classes: int) -> Any:
        """Return a random label as a dataset stores it, for checks without data.

        Args:
            chance: Source of random numbers.
            classes: Number of classes.
        """

    def label_width(self, classes: int) -> int:
        """Return the number of values that encode one label in a row of numbers."""
        return 1

    @abstractmethod
    def loss_sum(
        self, logits: "torch.Tensor", labels: "torch.Tensor", known: "torch.Tensor", smoothing: float
    ) -> "torch.Tensor":
        """Return the loss, summed over the labels of a batch that count.

        Args:
            logits: Logits [batch, outputs], float32.
            labels: Labels of the batch.
            known: Mask of the labels that count, of the shape of ``labels``.
            smoothing: Share of each label that is spread over all classes, in [0, 1).

        Returns:
            A scalar.
        """

    def label_weights(self, labels: "torch.Tensor", known: "torch.Tensor") -> "torch.Tensor":
        """Return the weight of each label in the loss, [batch] or [batch, classes].

        Args:
            labels: Labels of the batch.
            known: Mask of the labels that count, of the shape of ``labels``.
        """
        return known


TARGETS: Registry[Target] = Registry("kind of labels")
"""All kinds of labels, by name."""
