"""Interface of a modality: what an example is, and everything that depends on it.

Code outside this folder asks a modality for a property or calls one of its methods; it never compares its name.
"""

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, ClassVar

from hf_finetune.errors import InputError, Problem
from hf_finetune.fields.base import Part
from hf_finetune.tasks.examples import DecodedForm, ExampleCheck, Inputs, MaskedInputs, Remarks, Splits
from hf_finetune.tasks.presentation import Presentation

if TYPE_CHECKING:
    import torch
    from datasets import Dataset, Features
    from torch import nn
    from transformers import PreTrainedConfig, PreTrainedModel

__all__ = ["Modality"]


class Modality(Presentation):
    """Kind of input of a model.

    Attributes:
        is_spatial: Whether an input is a grid of values of a fixed size, as an image is.
        has_tokens: Whether an input is a sequence of token ids of any length.
        opens_files: Whether an example is a file that is opened when it is needed; otherwise files are read as text.
        processor_class: Class of transformers that loads the preprocessor of a checkpoint.
        processor_slot: Argument and attribute of ``transformers.pipeline`` for it, such as ``tokenizer``.
        processor_files: Checkpoint files that configure the preprocessor, the most common first.
        data_fields: Fields of ``data`` in recipes that concern this modality only.
        augment_fields: Fields of ``data.augment`` that concern this modality only.
        augment_words: These fields in words, for messages.
        no_augmentation: Values of these fields that disable augmentation.
        packages: Packages besides torch and transformers that the preprocessor needs.
    """

    is_spatial: ClassVar[bool] = False
    has_tokens: ClassVar[bool] = False
    opens_files: ClassVar[bool] = False
    processor_class: ClassVar[str]
    processor_slot: ClassVar[str]
    processor_files: ClassVar[tuple[str, ...]] = ("preprocessor_config.json", "processor_config.json")
    data_fields: ClassVar[type[Part]] = Part
    augment_fields: ClassVar[type[Part]] = Part
    augment_words: ClassVar[str] = "none"
    no_augmentation: ClassVar[Mapping[str, Any]] = {}
    packages: ClassVar[tuple[str, ...]] = ()

    @property
    def processor_noun(self) -> str:
        """Noun for the preprocessor with its article, such as ``a tokenizer``."""
        return f"a {self.processor_slot.replace('_', ' ')}"

    def field_problems(self, augment: Mapping[str, Any]) -> Iterator[Problem]:
        """Yield the problems between the fields of ``data.augment``.

        Args:
            augment: ``data.augment`` of the recipe, as a plain mapping; any value may be of the wrong type.
        """
        yield from ()

    # Columns of data

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
        from hf_finetune.tasks.columns import usual_columns

        return usual_columns(self.roles, features, named, taken)

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

    def check(self) -> ExampleCheck:
        """Return a new check of examples, which reads each of them once."""
        from hf_finetune.tasks.stored import ReadCheck

        return ReadCheck(self.pipeline_input)

    def hashes(self, dataset: "Dataset") -> tuple[Sequence[str | None], Sequence[str | None]]:
        """Return two hashes of each example, without decoding it.

        Args:
            dataset: Dataset with the columns of the roles.

        Returns:
            SHA-256 of the exact content, and a key that is equal for copies; None for what cannot be compared.
        """
        from hf_finetune.tasks.stored import hash_file, hash_rows, map_files

        if not self.opens_files:
            hashes: list[str | None] = [*hash_rows(dataset, self.columns_in(dataset.column_names))]
            return hashes, hashes
        feature = self.features(decode=False)[self.main_column]
        contents = tuple(map_files(dataset, self.main_column, feature, hash_file))
        return contents, contents

    def extreme_rows(self, dataset: "Dataset", lengths: Sequence[int] | None = None) -> list[int]:
        """Return the rows on which a model is most likely to fail: the longest, the largest.

        Args:
            dataset: Dataset with the columns of the roles.
            lengths: Number of tokens of each example, if known.
        """
        return [] if lengths is None else [max(range(len(lengths)), key=lengths.__getitem__)]

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

    def check_processor(self, processor: Any) -> None:
        """Use a loaded preprocessor on a small example: loading checks no settings.

        Raises:
            Exception: Of any class, if a setting has an invalid value.
        """
        self.dummy(processor)

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
        return ()

    def same_inputs(self, processor: Any, other: Any) -> bool:
        """Return whether two preprocessors make the same model inputs of an example."""
        import torch

        inputs, others = (self.dummy(each)[self.main_input] for each in (processor, other))
        return inputs.shape == others.shape and torch.equal(inputs, others)

    def unfit_pooling(self, model: "nn.Module", pooling: str) -> str | None:
        """Return the reason why a model has no position that a pooling reads; None if it has.

        Args:
            model: Model on any device.
            pooling: Name of the pooling, such as ``cls``.
        """
        return None

    # Model inputs

    def varies(self, augment: Any) -> bool:
        """Return whether training examples are augmented.

        Args:
            augment: ``data.augment`` of the recipe.
        """
        fields = self.augment_fields.model_fields.items()
        return any(
            getattr(augment, name) != self.no_augmentation.get(name, field.default) for name, field in fields
        )

    def prepare(self, splits: Splits, processor: Any, data: Any, seed: int) -> Inputs:
        """Return the model inputs of the training and validation splits.

        Args:
            splits: Splits with the columns of the roles and of the labels.
            processor: Configured preprocessor.
            data: ``data`` of the recipe.
            seed: Seed of the run.
        """
        from hf_finetune.tasks.processed_examples import processed_inputs

        return processed_inputs(splits, self, processor)

    def dummy(self, processor: Any) -> "dict[str, torch.Tensor]":
        """Return a batch of one dummy example, to test a forward pass."""
        return self.batch_inputs(processor)(self.tracing_examples()[:1])

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
        value, repair = "'continue_pretraining'", f"It is not supported for {self.plural}."
        raise InputError(Problem("domain_adaptation.method", "must be coral or dann", value, repair))

    def decoded_form(self, examples: Any) -> "DecodedForm | None":
        """Return how decoded examples are stored, so that each is decoded once; None if that saves nothing.

        Args:
            examples: Examples of a split, as ``prepare`` returns them without their random seeds.
        """
        return None

    @abstractmethod
    def save_tiny_checkpoint(self, folder: Path) -> None:
        """Write a tiny checkpoint with random weights, for checks without a real one."""

    # Predictions of finished models

    def pipeline_settings(self, processor: Any, model: "PreTrainedModel") -> dict[str, Any]:
        """Return the arguments of ``transformers.pipeline`` besides task and model."""
        return {self.processor_slot: processor}

    def processor_of(self, pipe: Any) -> Any:
        """Return the preprocessor of a pipeline of transformers."""
        return getattr(pipe, self.processor_slot)

    @abstractmethod
    def pipeline_input(self, row: Mapping[str, Any]) -> Any:
        """Return a row of loaded data in the form that a pipeline takes."""

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
        from hf_finetune.tasks.pipelines import collate_inputs, preprocess

        return collate_inputs(pipe, preprocess(pipe, examples, size))

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

    def tracing_examples(self) -> list[Any]:
        """Return two examples to trace a model with; torch would treat a batch size of 1 as a constant."""
        columns = self.made_up(2, Random(0))
        return [self.pipeline_input({name: columns[name][row] for name in columns}) for row in range(2)]

    def describe_processor(self, processor: Any) -> dict[str, Any]:
        """Return the settings of a preprocessor, as JSON values, from which its computation can be repeated."""
        return dict(processor.to_dict())
