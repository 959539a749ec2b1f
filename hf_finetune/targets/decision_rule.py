"""How the classes of multi-label examples are decided from their probabilities."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

__all__ = ["DEFAULT_RULE", "DEFAULT_THRESHOLD", "DecisionRule"]

DEFAULT_THRESHOLD = 0.5


@dataclass(frozen=True)
class DecisionRule:
    """Rule that decides which classes an example has: those that reach a threshold, or the most probable ones.

    Attributes:
        thresholds: Threshold of each class; None is 0.5 for all classes.
        top_k: Number of the most probable classes that are predicted, whatever their probabilities; None uses the
            thresholds.
    """

    thresholds: tuple[float, ...] | None = None
    top_k: int | None = None

    def __call__(self, scores: "np.ndarray") -> "np.ndarray":
        """Return 1 for each class that is predicted, else 0, [examples, classes], int64.

        Args:
            scores: Probabilities [examples, classes]. Equal ones are taken in the order of the classes.
        """
        import numpy as np

        if self.top_k is None:
            thresholds = DEFAULT_THRESHOLD if self.thresholds is None else np.asarray(self.thresholds)
            reached: np.ndarray = scores >= thresholds
            return reached.astype(np.int64)
        order = np.argsort(-scores, axis=1, kind="stable")[:, : self.top_k]
        decisions = np.zeros(scores.shape, dtype=np.int64)
        np.put_along_axis(decisions, order, 1, axis=1)
        return decisions

    def reordered(self, columns: Sequence[int]) -> "DecisionRule":
        """Return the rule for classes in another order.

        Args:
            columns: Current index of each class, in the new order [classes].
        """
        if self.thresholds is None:
            return self
        return replace(self, thresholds=tuple(self.thresholds[column] for column in columns))

    @classmethod
    def of_run(
        cls, thresholds: Mapping[str, float] | None, label_names: Sequence[str], top_k: int | None
    ) -> "DecisionRule":
        """Return the rule of a run.

        Args:
            thresholds: ``thresholds`` of its ``metrics.json``, by class; None if none were fitted.
            label_names: Class names in the order of the scores.
            top_k: ``evaluation.top_k`` of its recipe.
        """
        return cls(tuple(thresholds[name] for name in label_names) if thresholds else None, top_k)


DEFAULT_RULE = DecisionRule()
