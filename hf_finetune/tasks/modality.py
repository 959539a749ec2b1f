"""Interface of a modality: what an example is, and everything that depends on it.

Code outside this folder asks a modality for a property or calls one of its methods; it never compares its name.
"""

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, ClassVar

from hf_finetune.errors import InputError, Problem
from hf_finetune.fields.base import Part
from hf_finetune.tasks.examples import (
    DecodedForm,
    Inputs,
    MaskedInputs,
    Remarks,
    SimpleFeatures,
    SimpleModels,
    Splits,
)
from hf_finetune.tasks.stored_data import StoredData

if TYPE_CHECKING:
    import torch
    from datasets import Dataset
    from torch import nn
    from transformers import PreTrainedConfig, PreTrainedModel

__all__ = ["Modality"]


class Modality(StoredData):
    """A modality: a kind of model input (image, text), with its columns, preprocessing, checks and pages.

    A *role* is the meaning of a column, such as image or text pair; the columns of a dataset may have any names.
    ``Presentation`` describes ``name``, ``roles``, ``model_inputs``, ``suffixes`` and others; ``StoredData`` how
    examples are found and checked.

    Attributes:
        is_spatial: Whether an input has channels, height and width, as an image has.
        has_fixed_size: Whether the main input of a model has the same shape for all examples.
        has_tokens: Whether an input is a sequence of token ids of any length.
        processor_class: Class of transformers that loads the preprocessor of a checkpoint.
        processor_argument: Argument of ``transformers.pipeline`` that takes the preprocessor, such as ``tokenizer``.
        processor_files: Checkpoint files that configure the preprocessor, the most common first.
        data_fields: Fields of ``data`` in recipes that concern this modality only.
        augment_fields: Fields of ``data.augment`` that concern this modality only.
        augment_description: Description of ``augment_fields``, for messages.
        no_augmentation: Values of ``augment_fields`` that disable augmentation.
        packages: Packages besides torch and transformers that the preprocessor needs.
        builds_new_models: Whether a model without pretrained weights can be built from the training split.
        made_of_data: What of such a model depends on the training split, with its verb.
    """

    is_spatial: ClassVar[bool] = False
    has_fixed_size: ClassVar[bool] = False
    has_tokens: ClassVar[bool] = False
    processor_class: ClassVar[str]
    processor_argument: ClassVar[str]
    processor_files: ClassVar[tuple[str, ...]] = ("preprocessor_config.json", "processor_config.json")
    data_fields: ClassVar[type[Part]] = Part
    augment_fields: ClassVar[type[Part]] = Part
    augment_description: ClassVar[str] = "none"
    no_augmentation: ClassVar[Mapping[str, Any]] = {}
    packages: ClassVar[tuple[str, ...]] = ()
    builds_new_models: ClassVar[bool] = False
    made_of_data: ClassVar[str] = "its tokenizer is made from the training split"

    @property
    def processor_noun(self) -> str:
        """Noun for the preprocessor with its article, such as ``a tokenizer``."""
        return f"a {self.processor_argument.replace('_', ' ')}"

    def field_problems(self, augment: Mapping[str, Any]) -> Iterator[Problem]:
        """Yield the problems of fields of ``data.augment`` that contradict each other.

        Args:
            augment: ``data.augment`` of the recipe, as a plain mapping; any value may be of the wrong type.
        """
        yield from ()

    # Checkpoints

    def load_processor(self, path: str, **options: Any) -> Any:
        """Load the preprocessor of a checkpoint.

        Args:
            path: A Hub id, or a folder.
            options: Further arguments of ``from_pretrained``.

        Returns:
            The preprocessor.

        Raises:
            Exception: Of any class, if there is none, or if it cannot be loaded.
        """
        import transformers

        return getattr(transformers, self.processor_class).from_pretrained(path, **options)

    def check_processor(self, processor: Any) -> None:
        """Use a loaded preprocessor on a small example: loading checks no settings.

        Raises:
            Exception: Of any class, if a setting has an invalid value.
        """
        self.synthetic_batch(processor)

    def is_default_processor(self, processor: Any) -> bool:
        """Return whether transformers built a default preprocessor because the checkpoint has no files for it."""
        return False

    def complete_processor(self, processor: Any) -> str | None:
        """Fill in missing settings of a preprocessor, such as a padding token, in place.

        Returns:
            Description of the missing part, such as ``a tokenizer with a padding token``; None if nothing is missing.
        """
        return None

    def complete_config(self, config: "PreTrainedConfig") -> None:
        """Fill in missing settings of a loaded model's config, such as the id of the padding token, in place."""

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

    def same_preprocessing(self, first: Any, second: Any) -> bool:
        """Return whether two preprocessors make the same model inputs of an example."""
        import torch

        first_batch, second_batch = self.synthetic_batch(first), self.synthetic_batch(second)
        name = self.main_input_in(first_batch)
        return name in second_batch and torch.equal(first_batch[name], second_batch[name])

    def pooling_objection(self, model: "nn.Module", pooling: str) -> str | None:
        """Return the reason why a pooling cannot be used with a model; None if it can.

        Args:
            model: Model on any device.
            pooling: Name of the pooling, such as ``cls``.
        """
        return None

    def checkpoint_data(self, data: Any) -> Any:
        """Return the ``data`` of a recipe without changes of the checkpoint's own input, such as a shorter window.

        Args:
            data: ``data`` of the recipe.
        """
        return data

    # Model inputs

    def is_augmented(self, data: Any) -> bool:
        """Return whether training examples are augmented.

        Args:
            data: ``data`` of the recipe.
        """
        fields = self.augment_fields.model_fields.items()
        return any(
            getattr(data.augment, name) != self.no_augmentation.get(name, field.default)
            for name, field in fields
        )

    def without_augmentation(self, data: Any) -> Any:
        """Return the ``data`` of a recipe without augmentation.

        Args:
            data: ``data`` of the recipe.
        """
        augment = type(data.augment)(**self.no_augmentation)
        return data.model_copy(update={"augment": augment})

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

    @property
    def simple_features(self) -> SimpleFeatures | None:
        """Features for a baseline without a checkpoint; None if there are none."""
        return None

    @property
    def simple_models(self) -> SimpleModels | None:
        """Models for baselines without a checkpoint; None if there are none."""
        return None

    def uneven_texts(self) -> tuple[str, str]:
        """Return the text of ``synthetic_batch`` and a longer one, to test padding; for a modality with tokens."""
        return "a", "a " * 16

    def synthetic_batch(self, processor: Any) -> "dict[str, torch.Tensor]":
        """Return model inputs of one synthetic example, to test a forward pass."""
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

    def training_size(self, train: "Dataset", data: Any) -> int:
        """Return the number of training examples that ``prepare`` makes of the training split.

        Args:
            train: Training split.
            data: ``data`` of the recipe.
        """
        return len(train)

    def caching_objection(self, processor: Any, data: Any) -> str:
        """Return why outputs of frozen layers cannot be cached; empty if they can.

        Args:
            processor: Configured preprocessor.
            data: ``data`` of the recipe.
        """
        return ""

    def decoded_form(self, examples: Any) -> "DecodedForm | None":
        """Return how decoded examples are stored, so that each is decoded once; None if that saves nothing.

        Args:
            examples: Unaugmented examples of a split as ``prepare`` returns them; the ``dataset`` of its
                ``SeededExamples``, if it returns these.
        """
        return None

    @abstractmethod
    def save_tiny_checkpoint(self, folder: Path) -> None:
        """Write a tiny checkpoint with random weights, for checks without a real one."""

    def save_new_model(self, folder: Path, train: "Dataset", data: Any, spec: Any, seed: int) -> None:
        """Write a checkpoint with random weights, whose preprocessor is made from the training split.

        Args:
            folder: Folder to write.
            train: Training split with the columns of the roles.
            data: ``data`` of the recipe.
            spec: ``model.new`` of the recipe.
            seed: Seed of the weights.
        """
        raise NotImplementedError(f"no new models for {self.plural}")

    def needs_vocabulary(self, path: str, revision: str | None) -> bool:
        """Return whether a checkpoint has no vocabulary for the labels, so that one is made from the training split.

        Args:
            path: A Hub id, or a folder.
            revision: Branch, tag or commit on the Hub.
        """
        return False

    def save_with_vocabulary(self, folder: Path, path: str, revision: str | None, train: "Dataset") -> str:
        """Write a checkpoint with the weights of another one, and a vocabulary made from the training split.

        Args:
            folder: Folder to write.
            path: A Hub id, or a folder.
            revision: Branch, tag or commit on the Hub.
            train: Training split with its labels.

        Returns:
            A note for the user.
        """
        raise NotImplementedError(f"no vocabularies for {self.plural}")

    # Predictions of finished models

    def pipeline_settings(self, processor: Any, model: "PreTrainedModel") -> dict[str, Any]:
        """Return the arguments of ``transformers.pipeline`` besides task and model."""
        return {self.processor_argument: processor}

    def get_processor(self, pipe: Any) -> Any:
        """Return the preprocessor of a pipeline of transformers."""
        return getattr(pipe, self.processor_argument)

    def input_length(self, example: Any) -> int:
        """Return a length by which inputs are sorted into batches; the same for all if they have no tokens.

        Args:
            example: Example as ``pipeline_input`` returns it.
        """
        return 1

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

    def has_unsupported_format(self, name: str) -> bool:
        """Return whether a file, by its suffix, contains an example in a format that must be converted first."""
        return False

    @abstractmethod
    def read_example(self, cells: Mapping[str, Any]) -> tuple[Any, Any]:
        """Read an example to predict.

        Args:
            cells: Value of each column. In the main column, a modality that opens files has a ``Path`` or the bytes
                of a file.

        Returns:
            The example as ``pipeline_input`` returns it, and facts for ``Remarks.add``, or None.

        Raises:
            ExampleError: If the cells contain no example.
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
        """Return two synthetic examples to trace a model with; ``torch.export`` specializes a batch size of 1."""
        columns = self.synthetic_examples(2, Random(0))
        return [self.pipeline_input({name: columns[name][row] for name in columns}) for row in range(2)]

    def describe_processor(self, processor: Any) -> dict[str, Any]:
        """Return the settings of a preprocessor as JSON values, for the metadata of exported models."""
        return dict(processor.to_dict())
