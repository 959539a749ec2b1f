"""Interface of the label types, and their registry.

A label type is called target in code and in the recipe field ``data.target``, as in scikit-learn. Code outside this
folder asks a target for a property or calls one of its methods; it never compares its name.
"""

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from hf_finetune.errors import Problem, counted
from hf_finetune.fields.registry import Registry
from hf_finetune.targets.decision_rule import DEFAULT_RULE, DecisionRule
from hf_finetune.targets.metric import Metric, MetricSettings
from hf_finetune.targets.reading import LabelSummary
from hf_finetune.targets.stored_predictions import StoredPredictions

if TYPE_CHECKING:
    from random import Random

    import numpy as np
    import torch

    from hf_finetune.targets.top_scores import Scores

__all__ = ["TARGETS", "Target", "requested_target"]


class Target(StoredPredictions):
    """Label type: how labels are recognized, encoded, decoded, scored, decided and evaluated.

    Attributes:
        name: Name in recipes and saved files.
        problem_type: Value of ``problem_type`` in the config of a transformers model; None if transformers has none.
        has_classes: Whether a label consists of named classes.
        is_exclusive: Whether a label is exactly one class. False without classes.
        is_numeric: Whether a label is one number, which a file may contain as text. False with classes. A label type
            can be neither.
        is_text: Whether a label is a text as a whole, such as a transcript, which is not parsed.
        is_vector: Whether a label is a list of numbers as a whole, such as the next values of a series. Its unit is
            that of the example, so that it has no class names and no separators.
        needs_groups: Whether its metrics compare the examples of a group, such as the candidates of a query, so that
            only tasks whose data has such groups accept it.
        has_standard_loss: Whether the loss is the cross-entropy of a softmax (exclusive) or of a sigmoid for each
            class, or the squared error of one output (numeric). Solvers, distillation, calibration, learned task
            weights and Spaces rely on it.
        accuracy_metric: Name of the metric that is the fraction of correct examples; None if there is none.
        default_metrics: Names of the metrics that are reported if the recipe names none, the primary one first.
        constant_baseline: Name of the baseline that predicts the same for every example, see
            ``constant_prediction``; empty if there is none.
        score_dimensions: Number of dimensions of the scores: 2 for [examples, classes], 1 for [examples].
        score_type: NumPy type of the scores; ``object`` for texts.
        has_untrained_baseline: Whether the predictions of the checkpoint before training are a baseline.
    """

    name: ClassVar[str]
    problem_type: ClassVar[str | None]
    has_classes: ClassVar[bool] = False
    is_exclusive: ClassVar[bool] = False
    is_numeric: ClassVar[bool] = False
    is_text: ClassVar[bool] = False
    is_vector: ClassVar[bool] = False
    needs_groups: ClassVar[bool] = False
    has_standard_loss: ClassVar[bool] = False
    accuracy_metric: ClassVar[str | None] = None
    default_metrics: ClassVar[tuple[str, ...]]
    constant_baseline: ClassVar[str] = ""
    score_dimensions: ClassVar[int] = 2
    score_type: ClassVar[Any] = float
    has_untrained_baseline: ClassVar[bool] = False

    def __init_subclass__(cls) -> None:
        """Check the properties of a label type.

        Raises:
            TypeError: If they contradict each other.
        """
        if cls.has_classes and cls.is_numeric:
            raise TypeError(f"{cls.__name__} must not set both has_classes and is_numeric")
        if cls.has_standard_loss and not (cls.has_classes or cls.is_numeric):
            raise TypeError(f"{cls.__name__} must set has_classes or is_numeric if it sets has_standard_loss")

    @property
    def has_several_classes(self) -> bool:
        """Whether a label can be any number of classes, so that each class is a yes-or-no question."""
        return self.has_classes and not self.is_exclusive

    @property
    def is_whole(self) -> bool:
        """Whether a label is read as it is, not as classes or a number that a cell may state in many forms."""
        return self.is_text or self.is_vector

    @property
    def has_squared_error(self) -> bool:
        """Whether the loss is the squared error of one output."""
        return self.is_numeric and self.has_standard_loss

    @property
    def linear_solver(self) -> Literal["logistic_regression", "ridge"] | None:
        """Solver that minimizes the loss of a linear head; None if there is none."""
        if self.has_squared_error:
            return "ridge"
        return "logistic_regression" if self.has_classes and self.has_standard_loss else None

    # Labels of data

    def recognizes(self, labels: LabelSummary) -> bool:
        """Return whether labels are of this type if a recipe leaves it open. At most one type recognizes them."""
        return False

    def incompatibility(self, labels: LabelSummary) -> str | None:
        """Return a description of labels that this type cannot represent, such as ``lists``; None if it can."""
        return None

    def label_type_notes(self, labels: LabelSummary, *, inferred: bool) -> tuple[str, ...]:
        """Return notes for the user on how labels are read.

        Args:
            labels: Types of the labels.
            inferred: Whether the label type was inferred from them.
        """
        return ()

    def read_cell(self, cell: Any) -> Any:
        """Return a label that is read as a whole.

        Args:
            cell: Cell of the data.
        """
        return cell

    def value_problems(
        self, values: Mapping[str, Sequence[Any]], ids: Mapping[str, Sequence[str]]
    ) -> list[Problem]:
        """Return the problems of individual label values, such as infinite numbers.

        Args:
            values: Labels of each split; None for a missing one.
            ids: Id of each example.
        """
        return []

    @abstractmethod
    def output_names(self, labels: Iterable[Any], declared: Sequence[str] | None) -> tuple[str, ...]:
        """Return the names of the outputs of a model, in order: the classes, or a single name.

        Args:
            labels: Labels that are present.
            declared: Class names that the data declares; None if it declares none.
        """

    @abstractmethod
    def feature(self, label_names: Sequence[str]) -> Any:
        """Return the feature type of ``datasets`` of the label column, which stores the class names with the data."""

    @abstractmethod
    def decode(self, label: Any, label_names: Sequence[str]) -> str | list[str] | float | list[float]:
        """Return a label or decision, in the form of ``label_array``, as it is shown and written to tables.

        Args:
            label: Class index, zeros and ones [classes], or number.
            label_names: Class names in the order of the model.
        """

    @property
    @abstractmethod
    def arrow_type(self) -> Any:
        """Arrow type of decoded labels."""

    @abstractmethod
    def describe_labels(self, labels: Sequence[Any], label_names: Sequence[str]) -> str:
        """Return the distribution of labels in words, such as ``3 classes with 20 (soup) to 61 (cake) examples``.

        Args:
            labels: Labels as a dataset stores them, at least one.
            label_names: Names of the outputs.
        """

    # Predictions

    def outputs_in_words(self, config: Any) -> str:
        """Return what the outputs of a new head are, such as ``3 labels``.

        Args:
            config: Config of the model.
        """
        return counted(config.num_labels, "label")

    def score_width(self, classes: int) -> int:
        """Return the number of scores of an example.

        Args:
            classes: Number of ``output_names``.
        """
        return classes

    @abstractmethod
    def summary(self, subject: str, classes: str) -> str:
        """Return a phrase for the model card, such as ``predicts a number for an image``.

        Args:
            subject: An example, such as ``an image``.
            classes: The number of classes in words.
        """

    @property
    @abstractmethod
    def metrics(self) -> tuple[Metric, ...]:
        """Metrics that are defined for such labels, in the order in which they are reported."""

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
            logits: Logits [examples, outputs], float64; or generated texts [examples].

        Returns:
            Probabilities [examples, classes], or predictions [examples].
        """

    @abstractmethod
    def decide(self, scores: "np.ndarray", rule: DecisionRule = DEFAULT_RULE) -> "np.ndarray":
        """Return the decision for each example.

        Args:
            scores: Scores, as ``scores`` returns them.
            rule: Rule that decides the classes of multi-label examples.

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

    def labels_fit(self, labels: tuple[int, ...], scores: tuple[int, ...]) -> bool:
        """Return whether labels belong to scores, by their shapes.

        Args:
            labels: Shape of labels, as ``label_array`` returns them.
            scores: Shape of scores.
        """
        return labels == (scores if self.has_several_classes else scores[:1])

    def mistakes(
        self, labels: "np.ndarray", scores: "Scores", decisions: "np.ndarray"
    ) -> tuple["np.ndarray", "np.ndarray"]:
        """Return which examples are mistakes, and their order in the report, which shows those with the highest values.

        Args:
            labels: Labels, as ``label_array`` returns them.
            scores: Scores of the model.
            decisions: Decisions, as ``decide`` returns them.

        Returns:
            A boolean mask of the mistakes [examples], and the confidence of each decision, or the size of its error if
            labels are not classes [examples]. By default there are no mistakes.
        """
        import numpy as np

        return np.zeros(len(labels), dtype=bool), np.zeros(len(labels))

    def slices(self, training: Sequence[Any], labels: Sequence[Any]) -> dict[str, list[str]]:
        """Return the slice of each example in divisions that follow from the labels, by the name of the division.

        Args:
            training: Labels of the training examples, as a dataset stores them.
            labels: Labels of the examples.
        """
        return {}

    def constant_prediction(self, labels: "np.ndarray", classes: int) -> "np.ndarray":
        """Return the scores of ``constant_baseline`` for any example: [classes], or a scalar.

        Args:
            labels: Labels of the training examples, as ``label_array`` returns them.
            classes: Number of classes.
        """
        raise NotImplementedError(f"{type(self).__name__} has no constant baseline")

    @abstractmethod
    def synthetic_label(self, rng: "Random", classes: int) -> Any:
        """Return a random label as a dataset stores it, for checks without data.

        Args:
            rng: Random number generator.
            classes: Number of classes.
        """

    def label_width(self, classes: int) -> int | None:
        """Return the width of a label in the label rows of several tasks; None if these do not support the label type.

        Args:
            classes: Number of classes.
        """
        return None

    @abstractmethod
    def loss_sum(
        self, logits: "torch.Tensor", labels: "torch.Tensor", valid: "torch.Tensor", smoothing: float
    ) -> "torch.Tensor":
        """Return the loss, summed over the valid labels of a batch (neither padding nor unknown).

        Args:
            logits: Logits [batch, outputs], float32.
            labels: Labels of the batch.
            valid: Mask of the valid labels, of the shape of ``labels``.
            smoothing: Share of each label that is distributed over all classes, in [0, 1).

        Returns:
            A scalar.
        """

    def label_weights(self, labels: "torch.Tensor", valid: "torch.Tensor") -> "torch.Tensor":
        """Return the weight of each label in the loss; the loss of a step is divided by their sum.

        Args:
            labels: Labels of the batch.
            valid: Mask of the valid labels, of the shape of ``labels``.

        Returns:
            Weights [batch] or [batch, classes], with the example weights and without class weights; or a mask, which
            counts as 0 and 1.
        """
        return valid


TARGETS: Registry[Target] = Registry("label type")
"""All label types, by name."""


def requested_target(name: str) -> Target | None:
    """Return the label type that ``data.target`` requests; None for ``auto``."""
    return None if name == "auto" else TARGETS[name]
