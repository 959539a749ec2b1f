"""Interfaces between a modality and its callers: model inputs, masked inputs, decoded examples, preview rows."""

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    import numpy as np
    import torch
    from datasets import Dataset
    from transformers import PreTrainedModel

__all__ = [
    "DecodedForm",
    "ExampleCheck",
    "ExampleError",
    "Inputs",
    "JoinedRows",
    "MaskedInputs",
    "PreviewRow",
    "Remarks",
    "SequenceOutputs",
    "SimpleFeatures",
    "SimpleModels",
    "Splits",
    "Statistics",
]


class Splits(Protocol):
    """Labeled splits to convert to model inputs."""

    @property
    def train(self) -> "Dataset":
        """Training split."""

    @property
    def validation(self) -> "Dataset | None":
        """Validation split; None if there is none."""


class Statistics(Protocol):
    """Statistics on how the examples of the splits were converted, such as truncated texts."""

    def of_rows(self, rows: Mapping[str, Sequence[int]]) -> "Statistics":
        """Return the statistics of selected rows of each split."""

    def note(self) -> str | None:
        """Return a message to the user; None if there is nothing to say."""


@dataclass(frozen=True)
class Inputs:
    """Examples as model inputs.

    Attributes:
        train: Training split, augmented.
        validation: Validation split, prepared as for inference; None if there is none.
        collate: Collate function; it also does the work per batch, such as normalization.
        lengths: Number of tokens of each training example, for batches of similar lengths; None for random batches.
        truncations: Truncation statistics by task; a single task has the name "".
        sequences: How a model is trained and evaluated whose output is a sequence of tokens; None for logits of labels.
        rows: Rows of the training split that each training example is made of; None if it is the row with its number.
    """

    train: Any
    validation: Any
    collate: "Callable[[list[dict[str, Any]]], dict[str, torch.Tensor]]"
    lengths: Sequence[int] | None = None
    truncations: Mapping[str, Any] = field(default_factory=dict)
    sequences: "SequenceOutputs | None" = None
    rows: Sequence[Sequence[int]] | None = None

    def made_of(self, rows: Sequence[int]) -> list[int]:
        """Return the training examples that are made of selected rows of the training split, in their order.

        Args:
            rows: Rows of the training split.
        """
        if self.rows is None:
            return list(rows)
        selected = set(rows)
        return [number for number, parts in enumerate(self.rows) if selected.issuperset(parts)]

    def made_with(self, row: int) -> int:
        """Return the training example that a row of the training split is part of.

        Args:
            row: Row of the training split.
        """
        if self.rows is None:
            return row
        return next(number for number, parts in enumerate(self.rows) if row in parts)

    @property
    def notes(self) -> dict[str, str]:
        """Messages to the user on truncated inputs, by task; only tasks that have one."""
        notes = {task: truncation.note() for task, truncation in self.truncations.items()}
        return {task: note for task, note in notes.items() if note is not None}


class SequenceOutputs(Protocol):
    """Training and evaluation of a model whose output is a sequence of tokens, such as a transcript.

    The labels of a batch are token ids [batch, tokens], padded by -100.
    """

    def loss(self, smoothing: float) -> "Callable[..., torch.Tensor] | None":
        """Return the loss function of outputs, labels and ``num_items_in_batch``; None for that of the label type.

        Args:
            smoothing: Share of each token that is distributed over the vocabulary.
        """

    def observe(self, model: "PreTrainedModel") -> "AbstractContextManager[dict[str, Any]]":
        """Return a context in which forward passes record what ``predict`` needs besides the logits.

        Args:
            model: Model, not wrapped.
        """

    def predict(
        self, model: "PreTrainedModel", logits: "torch.Tensor", observed: Mapping[str, Any]
    ) -> "torch.Tensor":
        """Return the tokens that the model writes for a batch [batch, tokens].

        Args:
            model: Model, not wrapped.
            logits: Logits of the batch [batch, tokens, vocabulary].
            observed: What ``observe`` recorded in its forward pass.
        """

    def texts(self, tokens: "np.ndarray") -> list[str]:
        """Return the texts of predictions.

        Args:
            tokens: Token ids [examples, tokens], padded by -100.
        """

    def label_texts(self, tokens: "np.ndarray") -> list[str]:
        """Return the texts of labels, whose tokens stand for themselves.

        Args:
            tokens: Token ids [examples, tokens], padded by -100.
        """


@dataclass(frozen=True)
class JoinedRows:
    """Tables whose rows were joined to examples.

    Attributes:
        splits: Examples of each split.
        columns: Names of their columns by role: those of the modality, and ``label``.
        sources: Names of the columns of the rows by role, which predictions read again.
        time: Column with the time of each example; None if there is none.
        notes: Messages to the user.
        is_divided: Whether the rows were divided by ``data.split.time`` before they were joined.
        groups_recur: Whether a group may be in several splits, as a series is, at different times.
    """

    splits: "Mapping[str, Dataset]"
    columns: Mapping[str, str]
    sources: Mapping[str, str]
    time: str | None = None
    notes: tuple[str, ...] = ()
    is_divided: bool = False
    groups_recur: bool = False


class ExampleCheck(Protocol):
    """Check of the examples of several splits."""

    def faults(self, dataset: "Dataset", ids: Sequence[str]) -> list[str | None]:
        """Return the reason why each example of a split cannot be used; None if it can."""

    def notes(self) -> list[str]:
        """Return messages to the user on how the examples checked so far are read."""


@dataclass(frozen=True)
class MaskedInputs:
    """Masked examples for self-supervised pretraining, and the model that restores their content.

    Attributes:
        train: Masked examples, with their original content as ``labels``.
        collate: Collate function.
        loss: Loss function of outputs, labels and ``num_items_in_batch``.
        lengths: Number of tokens of each example, for batches of similar lengths; None for random batches.
        unmasked: The same examples without masks, to recompute BatchNorm statistics; None if they are not needed.
        auto_model: Auto class of transformers that loads the checkpoint with its pretraining head; None if there is
            none, so that the classifier is wrapped.
        wrap: Function of a classifier and a seed that returns a model to train in its place; None with ``auto_model``.
    """

    train: Any
    collate: Callable[[list[dict[str, Any]]], Any]
    loss: "Callable[..., torch.Tensor]"
    lengths: Sequence[int] | None = None
    unmasked: Inputs | None = None
    auto_model: str | None = None
    wrap: "Callable[[PreTrainedModel, int], PreTrainedModel] | None" = None


class DecodedForm(Protocol):
    """Stored form of decoded examples."""

    @property
    def what(self) -> str:
        """Words for the stored examples, such as ``decoded images``."""

    @property
    def facts(self) -> Mapping[str, Any]:
        """JSON values that the stored content depends on, besides the data."""

    @property
    def packages(self) -> tuple[str, ...]:
        """Optional packages whose versions it depends on."""

    def __len__(self) -> int:
        """Return the number of examples."""

    def select(self, rows: Sequence[int]) -> "DecodedForm":
        """Return the form of some of the examples."""

    def rows(self) -> "Generator[tuple[torch.Tensor, ...], None, None]":
        """Yield the tensors of each example, in order."""

    def formats(self, first: "tuple[torch.Tensor, ...]") -> list[tuple[tuple[int, ...], str, bool]]:
        """Return shape, dtype and whether the first dimension varies, for each tensor of an example."""

    def source(self) -> Any:
        """Return the examples as they are, decoded at each access."""

    def over(self, store: Any) -> Any:
        """Return the same examples, read from a store of the rows."""


@dataclass(frozen=True)
class PreviewRow:
    """Training example with its views (augmented versions).

    Attributes:
        label: Label as text.
        original: Example before augmentation.
        views: Views, one for each epoch.
    """

    label: str
    original: Any
    views: Sequence[Any]


class ExampleError(ValueError):
    """Raised for an example that cannot be read; the message describes its content, such as ``an empty file``."""


@dataclass(frozen=True)
class SimpleFeatures:
    """Features that need no checkpoint, for a simple baseline.

    Attributes:
        name: Name in ``metrics.json``, such as ``log_mel``.
        title: Name in words, such as ``log-mel statistics``.
        compute: Function of the training split, the test split and ``data`` of the recipe that returns the features of
            both splits, [examples, features], dense or sparse, by the name of their kind. The best kind is chosen by
            cross-validation; a single kind has the name "".
        boosting: Whether gradient boosting of the features is a second baseline, next to the linear model; only for a
            single kind of dense features.
        is_quick: Whether computing and fitting them takes little time for any number of examples.
    """

    name: str
    title: str
    compute: "Callable[[Dataset, Dataset, Any], Mapping[str, tuple[Any, Any]]]"
    boosting: bool = False
    is_quick: bool = False

    @property
    def boosting_name(self) -> str:
        """Key of the baseline by gradient boosting in ``metrics.json``."""
        return f"{self.name}_boosting"


@dataclass(frozen=True)
class SimpleModels:
    """Models of a modality that are not trained with gradients, as baselines; most need no checkpoint.

    Attributes:
        titles: Names in words, by their names in ``metrics.json``.
        fit: Function of the splits (``train``, ``validation`` and ``test``) and ``data`` of the recipe that returns by
            name the scores on the test split, as the label type defines them, and the chosen settings.
        frozen: Function of the checkpoint before training, as a model and its preprocessor, and of the splits that
            returns the same; None if no baseline uses the checkpoint.
    """

    titles: Mapping[str, str]
    fit: "Callable[[Any, Any], Mapping[str, tuple[Any, dict[str, Any]]]]"
    frozen: "Callable[[Any, Any, Any], Mapping[str, tuple[Any, dict[str, Any]]]] | None" = None


class Remarks:
    """Collector of remarks for the user on the examples of a prediction, in constant memory.

    This class collects none; modalities extend it.
    """

    def add(self, name: str, facts: Any) -> None:
        """Record the facts that ``read_example`` returned.

        Args:
            name: Id of the example.
            facts: Facts on how it was read.
        """

    def sentences(self) -> list[str]:
        """Return the remarks so far, one sentence each."""
        return []
