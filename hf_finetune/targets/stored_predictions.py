"""Interface of the label types: labels, predictions and scores in tables."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    from hf_finetune.targets.top_scores import Scores

__all__ = ["StoredPredictions"]


class StoredPredictions(ABC):
    """Columns of tables of predictions, for labels without classes; the scores of classes are probabilities."""

    @abstractmethod
    def encode(self, label: Any, indices: Mapping[str, int]) -> Any:
        """Return a label as a dataset stores it.

        Args:
            label: Label as it is read.
            indices: Index of each of the ``output_names``.
        """

    def stored_columns(self, labels: "np.ndarray", scores: "Scores") -> dict[str, list[Any]]:
        """Return further columns of ``predictions.parquet``, for labels without classes.

        Args:
            labels: Labels, as ``label_array`` returns them.
            scores: Scores of the model.
        """
        return {}

    def restored(
        self, labels: Sequence[Any], predictions: Sequence[Any], columns: Mapping[str, Sequence[Any]]
    ) -> tuple[list[Any], "np.ndarray"]:
        """Return the labels and scores of ``predictions.parquet``, for labels without classes.

        Args:
            labels: Labels of all examples, as ``decode`` returns them.
            predictions: Predictions, as ``decode`` returns them.
            columns: All columns of the file.

        Returns:
            Labels as a dataset stores them, and scores.
        """
        return [self.encode(label, {}) for label in labels], self.stored_scores(predictions)

    @property
    def score_columns(self) -> Mapping[str, Any]:
        """Arrow type of each of the ``shown_scores``, in tables of predictions."""
        return {}

    def shown_scores(self, scores: "np.ndarray") -> dict[str, Any]:
        """Return values besides the prediction that an output of predictions contains, for labels without classes.

        Args:
            scores: Scores of one example.
        """
        return {}

    def stored_scores(self, predictions: Sequence[Any]) -> "np.ndarray":
        """Return the scores of predictions in ``predictions.parquet``, which has no scores of labels without classes.

        Args:
            predictions: Predictions of all examples, as ``decode`` returns them.
        """
        raise NotImplementedError(f"{type(self).__name__} must define stored_scores")
