"""Interface of a modality: what an example is, and everything that depends on it.

Code outside this folder asks a modality for a property or calls one of its methods; it never compares its name.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from hf_finetune.errors import InputError, Problem
from hf_finetune.fields.base import Part
from hf_finetune.tasks.columns import ColumnRole
from hf_finetune.tasks.examples import (
    DecodedForm,
    ExampleCheck,
    Inputs,
    MaskedInputs,
    PreviewRow,
    Remarks,
    Splits,
)

if TYPE_CHECKING:
    import torch
    from datasets import Dataset, Features
    from torch import nn
    from transformers import PreTrainedConfig, PreTrainedModel

__all__ = ["Modality"]


class Modality(ABC):
    """Kind of input of a model.

    Attributes:
        name: Name, such as ``image``.
        article: Noun for one example with its article, such as ``an image``.
        plural: Noun for several examples, such as ``images``.
        readable: What a row must hold, for messages, such as ``a readable image``.
        file_noun: Noun for a file with one example, such as ``picture``.
        plural_files: Noun for several such files, such as ``pictures``.
        roles: Columns of an example. The first one is required.
        model_inputs: Names of the inputs that a model's ``forward`` may take, the main one first.
        is_spatial: Whether an input is a grid of values of a fixed size, as an image is.
        has_tokens: Whether an input is a sequence of token ids of any length.
        opens_files: Whether an example is a file that is opened when it is needed; otherwise files are read as text.
        processor_class: Class of transformers that loads the preprocessor of a checkpoint.
        processor_noun: Noun for the preprocessor with its article, such as ``a tokenizer``.
        processor_files: Checkpoint files that configure the preprocessor, the most common first.
        data_fields: Fields of ``data`` in recipes that concern this modality only.
        augment_fields: Fields of ``data.augment`` that concern this modality only.
        augment_words: These fields in words, for messages.
        no_augmentation: Values of these fields that disable augmentation.
        packages: Packages besides torch and transformers that the preprocessor needs.
    """

    name: ClassVar[str]
    article: ClassVar[str]
    plural: ClassVar[str]
    readable: ClassVar[str]
    file_noun: ClassVar[str]
    plural_files: ClassVar[str]
    roles: ClassVar[tuple[ColumnRole, ...]]
    model_inputs: ClassVar[tuple[str, ...]]
    is_spatial: ClassVar[bool] = False
    has_tokens: ClassVar[bool] = False
    opens_files: ClassVar[bool] = False
    processor_class: ClassVar[str]
    processor_noun: ClassVar[str]
    processor_files: ClassVar[tuple[str, ...]]
    data_fields: ClassVar[type[Part]]
    augment_fields: ClassVar[type[Part]]
    augment_words: ClassVar[str]
    no_augmentation: ClassVar[Mapping[str, Any]] = {}
    packages: ClassVar[tuple[str, ...]] = ()

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the column roles."""
        return tuple(role.name for role in self.roles)

    @property
    def main_column(self) -> str:
        """Required column."""
        return self.roles[0].name

    @property
    def main_input(self) -> str:
        """Main input of the model."""
        return self.model_inputs[0]

    @property
    @abstractmethod
    def suffixes(self) -> frozenset[str]:
        """Lower-case suffixes of files with one example each."""

    def columns_in(self, names: Iterable[str]) -> list[str]:
        """Return the columns of an example that are among the given names, in the order of the roles."""
        present = set(names)
        return [name for name in self.columns if name in present]

    def field_problems(self, augment: Mapping[str, Any]) -> Iterator[Problem]:
        """Yield the problems between the fields of ``data.augment``.

        Args:
            augment: ``data.augment`` of the recipe, as a plain mapping; any value may be of the wrong type.
        """
        yield from ()

    # Columns of data

    @abstractmethod
    def find_columns(
        self, features: "Features", named: Mapping[str, str], taken: Sequence[str | None]
    ) -> tuple[dict[str, str | None], list[Problem]]:
        """Find the columns of the examples by name and type.

        Args:
            features: Columns of the data and their types.
            named: Columns that the user named, by role.
            taken: Columns that are used otherwise.

        Returns:
            Column of each role (None for an optional role without one), and problems.
        """

    def unreadable_files(self, place: str, files: Iterable[Any]) -> list[Problem]:
        """Return a problem for files that hold examples in a format that cannot be read.

        Args:
            place: Place of the problems.
            files: Paths of all files in a folder.
        """
        return []

    def partners(self, name: str) -> tuple[str, ...]:
        """Return the usual names of the optional column, by the name of the main column."""
        return ()

    # Stored examples

    @abstractmethod
    def features(self, *, decode: bool = True) -> dict[str, Any]:
        """Return the feature type of each role in loaded data.

        Args:
            decode: Whether a row holds the example itself; otherwise its file, where the modality opens files.
        """

    @abstractmethod
    def check(self) -> ExampleCheck:
        """Return a new check of examples, which reads each of them once."""

    @abstractmethod
    def hashes(self, dataset: "Dataset") -> tuple[Sequence[str | None], Sequence[str | None]]:
        """Return two hashes of each example, without decoding it.

        Args:
            dataset: Dataset with the columns of the roles.

        Returns:
            SHA-256 of the exact content, and a key that is equal for copies; None for what cannot be compared.
        """

    @abstractmethod
    def extreme_rows(self, dataset: "Dataset", lengths: Sequence[int] | None = None) -> list[int]:
        """Return the rows on which a model is most likely to fail: the longest, the largest.

        Args:
            dataset: Dataset with the columns of the roles.
            lengths: Number of tokens of each example, if known.
        """

    @abstractmethod
    def made_up(self, count: int, chance: Any, *, length: int = 16, pair: bool = False) -> dict[str, Any]:
        """Return made-up examples, for checks without data.

        Args:
            count: Number of examples.
            chance: Instance of ``random.Random``.
            length: Length of the longest example, if the modality has lengths, in words.
            pair: Whether optional columns are filled too.

        Returns:
            Values of each column.
        """

    # Checkpoints

    @abstractmethod
    def check_processor(self, processor: Any) -> None:
        """Use a loaded preprocessor on a small example: loading checks no settings.

        Raises:
            Exception: Of any class, if a setting has an invalid value.
        """

    def is_empty(self, processor: Any) -> bool:
        """Return whether a preprocessor was built although the files of the checkpoint lack it."""
        return False

    def complete_processor(self, processor: Any) -> str | None:
        """Set what a preprocessor lacks, such as a padding token, in place.

        Returns:
            What the checkpoint must have and lacks, such as ``a tokenizer with a padding token``; None if nothing.
        """
        return None

    def complete_config(self, config: "PreTrainedConfig") -> None:
        """Set what the config of a loaded model lacks, such as the id of the padding token, in place."""
        return None

    @abstractmethod
    def configure(
        self,
        processor: Any,
        config: "PreTrainedConfig",
        data: Any,
        skeleton: "Callable[[], PreTrainedModel]",
    ) -> tuple[str, ...]:
        """Apply the recipe's data fields to the preprocessor and the model config, in place.

        Args:
            processor: Preprocessor of the checkpoint.
            config: Config of the model.
            data: ``data`` of the recipe, which has the fields of ``data_fields`` and ``augment``.
            skeleton: Function that builds the model without weights.

        Returns:
            Messages to the user, one sentence each.

        Raises:
            InputError: If the checkpoint does not support a value.
        """

    @abstractmethod
    def same_inputs(self, processor: Any, other: Any) -> bool:
        """Return whether two preprocessors make the same model inputs of an example."""

    def unfit_pooling(self, model: "nn.Module", pooling: str) -> str | None:
        """Return the reason why a model has no position that a pooling reads; None if it has.

        Args:
            model: Model on any device.
            pooling: Name of the pooling, such as ``cls``.
        """
        return None

    # Model inputs

    @abstractmethod
    def varies(self, augment: Any) -> bool:
        """Return whether training examples are augmented.

        Args:
            augment: ``data.augment`` of the recipe.
        """

    @abstractmethod
    def prepare(self, splits: Splits, processor: Any, data: Any, seed: int) -> Inputs:
        """Return the model inputs of the training and validation splits.

        Args:
            splits: Splits with the columns of the roles and of the labels.
            processor: Configured preprocessor.
            data: ``data`` of the recipe.
            seed: Seed of the run.
        """

    @abstractmethod
    def dummy(self, processor: Any) -> "dict[str, torch.Tensor]":
        """Return a batch of one dummy example, to test a forward pass."""

    def masked(
        self, splits: Splits, processor: Any, data: Any, seed: int, share: float | None
    ) -> MaskedInputs:
        """Return masked examples for self-supervised pretraining.

        Args:
            splits: The training split is masked.
            processor: Configured preprocessor.
            data: ``data`` of the recipe.
            seed: Seed of the run.
            share: Share of each example to mask; None is the usual one.

        Raises:
            InputError: If the checkpoint, or the modality, cannot be pretrained in this way.
        """
        rule = f"must be coral or dann for {self.plural}"
        raise InputError(Problem("domain_adaptation.method", rule, "'continue_pretraining'"))

    def decoded_form(self, examples: Any) -> "DecodedForm | None":
        """Return how decoded examples are stored, so that each is decoded once; None if that saves nothing.

        Args:
            examples: Examples of a split, as ``prepare`` returns them without their random seeds.
        """
        return None

    def size_words(self, batch: Mapping[str, Any]) -> str:
        """Return the size of the examples of a batch in words, such as ``38 tokens``."""
        return " x ".join(map(str, batch[self.main_input].shape[1:]))

    # Looking at examples

    @property
    @abstractmethod
    def preview_suffixes(self) -> tuple[str, ...]:
        """Suffixes of files that a preview can be written to, the usual one first."""

    @abstractmethod
    def write_preview(self, rows: "Sequence[PreviewRow]", path: Path, title: str, suffix: str) -> None:
        """Write original examples and their augmented versions to a file.

        Args:
            rows: Examples as ``preview_example`` and ``preview_inputs`` return them.
            path: File to write.
            title: Title of the page.
            suffix: Suffix of the final name of the file, which determines its format.
        """

    @abstractmethod
    def preview_example(self, row: Mapping[str, Any]) -> Any:
        """Return an example of loaded data in a form that ``write_preview`` shows."""

    @abstractmethod
    def preview_inputs(self, inputs: Mapping[str, Any], processor: Any) -> Any:
        """Return the model inputs of an example in a form that ``write_preview`` shows."""

    @abstractmethod
    def save_tiny_checkpoint(self, folder: Path) -> None:
        """Write a tiny checkpoint with random weights, for checks without a real one."""

    # Predictions of finished models

    @abstractmethod
    def pipeline_settings(self, processor: Any, model: "PreTrainedModel") -> dict[str, Any]:
        """Return the arguments of ``transformers.pipeline`` besides task and model."""

    @abstractmethod
    def processor_of(self, pipe: Any) -> Any:
        """Return the preprocessor of a pipeline of transformers."""

    @abstractmethod
    def pipeline_input(self, row: Mapping[str, Any]) -> Any:
        """Return a row of loaded data in the form that a pipeline takes."""

    @abstractmethod
    def read_batch(
        self, pipe: Any, examples: Iterator[Any], size: int, remarks: Remarks | None = None
    ) -> Any:
        """Return the model inputs of the next examples, preprocessed as by the pipeline; None at the end.

        Args:
            pipe: Pipeline of transformers.
            examples: Examples as ``pipeline_input`` returns them; only the next ones are read.
            size: Number of examples.
            remarks: Collector from ``remarks``, which counts truncated examples; None counts none.
        """

    def is_unreadable(self, name: str) -> bool:
        """Return whether a file, by its suffix, holds an example in a format that must be converted first."""
        return False

    @abstractmethod
    def read_example(self, cells: Mapping[str, Any]) -> tuple[Any, Any]:
        """Read an example to predict.

        Args:
            cells: Value of each column. In the main column, a modality that opens files has a ``Path`` or the bytes
                of a file.

        Returns:
            The example as ``pipeline_input`` returns it, and facts for ``remarks`` on how it was read, or None.

        Raises:
            ExampleError: If the cells hold no example.
            Exception: Any exception that a decoder raises for a damaged file.
        """

    def remarks(self) -> Remarks:
        """Return a new collector of remarks on the examples of a prediction."""
        return Remarks()

    def makes_batches(self, processor: Any) -> bool:
        """Return whether model inputs of several examples can be joined to a batch, by padding for example."""
        return True

    @abstractmethod
    def batch_inputs(self, processor: Any) -> "Callable[[Sequence[Any]], dict[str, torch.Tensor]]":
        """Return a function that preprocesses examples exactly as the pipeline of transformers does.

        Args:
            processor: Preprocessor of the model.

        Returns:
            Function from examples, as ``pipeline_input`` returns them, to model inputs.
        """

    @abstractmethod
    def tracing_examples(self) -> list[Any]:
        """Return two examples to trace a model with; torch would treat a batch size of 1 as a constant."""

    def describe_processor(self, processor: Any) -> dict[str, Any]:
        """Return the settings of a preprocessor, as JSON values, from which its computation can be repeated."""
        return dict(processor.to_dict())

    @abstractmethod
    def show(self, row: Mapping[str, Any]) -> dict[str, str]:
        """Return a row of loaded data for an HTML page: ``text``, or ``image`` as a data URI."""

    @abstractmethod
    def example_code(self, *, pair: bool) -> str:
        """Return the argument of a call of a pipeline in Python, for model cards.

        Args:
            pair: Whether examples have the optional column.
        """

    @abstractmethod
    def page_fields(self, gradio: Any, *, pair: bool) -> list[Any]:
        """Return the gradio components in which the user enters an example, one for each column.

        Args:
            gradio: The module.
            pair: Whether examples have the optional column.
        """

    @abstractmethod
    def page_values(self, example: Any, path: Path) -> dict[str, str]:
        """Return an example, as ``pipeline_input`` returns it, as the value of each of the ``page_fields``.

        Args:
            example: The example.
            path: Path, without a suffix, of a file that may be written.
        """

    @property
    @abstractmethod
    def space_code(self) -> Path:
        """Python file with the fields of a Space's page, which the ``app.py`` of the Space imports."""

    def space_settings(self, processor: Any, *, pair: bool) -> dict[str, Any]:
        """Return the settings that ``space_code`` reads; the arguments are those of other methods."""
        return {}
