"""Tasks (a modality with an architecture of transformers), and the registries of modalities and tasks."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hf_finetune.fields.registry import Registry
from hf_finetune.targets import TARGETS
from hf_finetune.tasks.examples import Inputs, Splits
from hf_finetune.tasks.modality import Modality

if TYPE_CHECKING:
    import numpy as np

__all__ = [
    "MODALITIES",
    "TASKS",
    "Task",
    "example_tokens",
    "find_modality",
    "fixed_size_input",
    "spatial_input",
    "token_count",
]


@dataclass(frozen=True)
class Task:
    """Task of a model: an architecture of transformers for one modality.

    Attributes:
        name: Name in recipes, and in ``transformers.pipeline`` unless ``served_as`` is set.
        title: Name in model cards.
        modality: Kind of input.
        auto_model: Name of the auto class of transformers.
        suffixes: Suffixes of the class names of its models, such as ``ForImageClassification``.
        served_as: Name of the pipeline that serves its models, if that is the pipeline of another task.
        targets: Label types of its data, the usual one first; empty for all that are not read as a whole and need no
            groups.
        further_auto_models: Names of other auto classes that have models for the task.
        has_new_head: Whether a checkpoint usually gets a new head, and does not keep its own outputs.
        has_label_head: Whether the outputs of its models are those of the labels, so that the head is a new one for
            other labels; False for a vocabulary, for example. See ``adapt_model``.
        draft_metrics: Metrics of a recipe that is written for new data; empty for those of the label type.
    """

    name: str
    title: str
    modality: Modality
    auto_model: str
    suffixes: tuple[str, ...]
    served_as: str = ""
    targets: tuple[str, ...] = ()
    further_auto_models: tuple[str, ...] = ()
    has_new_head: bool = True
    has_label_head: bool = True
    draft_metrics: tuple[str, ...] = ()

    @property
    def pipeline_name(self) -> str:
        """Task in ``transformers.pipeline``, the Hub's pipeline tag."""
        return self.served_as or self.name

    @property
    def auto_class(self) -> Any:
        """Auto class of transformers."""
        import transformers

        return getattr(transformers, self.auto_model)

    def auto_class_of(self, config: Any) -> Any:
        """Return the auto class that builds the model of a config; ``auto_class`` if none of them does.

        Args:
            config: Config of a model.
        """
        import transformers

        classes = [getattr(transformers, name) for name in (self.auto_model, *self.further_auto_models)]
        return next((each for each in classes if type(config) in each._model_mapping), classes[0])

    def accepts(self, target: str) -> bool:
        """Return whether data of the task may have labels of a type.

        Args:
            target: Name of the label type.
        """
        kind = TARGETS[target]
        return target in self.targets if self.targets else not (kind.is_whole or kind.needs_groups)

    def label_type(self, requested: str) -> str:
        """Return the label type to read: the usual one of the task in place of ``auto``, if it has one.

        Args:
            requested: ``data.target`` of a recipe.
        """
        return self.targets[0] if requested == "auto" and self.targets else requested

    def draft_stages(self, model: str) -> str:
        """Return the stages of a recipe that is written for new data, in YAML; empty for those of a new head.

        Args:
            model: Checkpoint.
        """
        return ""

    def complete_model(self, model: Any, processor: Any) -> None:
        """Change settings of a loaded model that are not part of its config, in place.

        Args:
            model: Model as loaded.
            processor: Configured preprocessor.
        """

    def outputs(self, pipe: Any, inputs: Mapping[str, Any]) -> "np.ndarray":
        """Return the outputs of a model for a batch, from which the scores are computed.

        Args:
            pipe: Pipeline of transformers.
            inputs: Model inputs as ``Modality.read_batch`` returns them.

        Returns:
            Logits [batch, outputs], float32; or an array of texts [batch].
        """
        logits: np.ndarray = pipe.forward(dict(inputs))["logits"].float().numpy()
        return logits

    def adapt_model(self, model: Any) -> Any:
        """Return a model of transformers whose logits are those of the labels; it may be changed in place.

        Args:
            model: Model of ``auto_class``.

        Raises:
            InputError: If its architecture does not suit the task.
        """
        return model

    def build_pipeline(self, model: Any, settings: Mapping[str, Any]) -> Any:
        """Return the predictor of a model: the pipeline of transformers, unless a task overrides this.

        Args:
            model: Model loaded by ``auto_class``.
            settings: Preprocessor and settings from ``modality.pipeline_settings``.
        """
        from transformers import pipeline

        return pipeline(self.pipeline_name, model=model, **settings)

    def usage_code(self, model: str, config: Mapping[str, Any], example: str, options: str = "") -> str:
        """Return Python code that loads a model without this package, and predicts an example.

        Args:
            model: Folder or Hub id.
            config: Content of its ``config.json``.
            example: Python expression of an example.
            options: Further arguments of the pipeline, such as ``, trust_remote_code=True``.
        """
        return (
            "from transformers import pipeline\n\n"
            f'classify = pipeline("{self.pipeline_name}", model="{model}"{options})\n'
            f"print(classify({example}))"
        )

    def loading_code(self, model: str, options: str = "") -> str:
        """Return a Python expression that loads a model without this package.

        Args:
            model: Folder or Hub id.
            options: Further arguments, such as ``, trust_remote_code=True``.
        """
        return f"pipeline({self.pipeline_name!r}, model={model!r}{options})"

    def prepare(self, splits: Splits, processor: Any, data: Any, seed: int) -> Inputs:
        """Return the model inputs of the training and validation splits."""
        return self.modality.prepare(splits, processor, data, seed)


MODALITIES: Registry[Modality] = Registry("modality")
"""All modalities, by name."""
TASKS: Registry[Task] = Registry("task")
"""All tasks, by name."""


def find_modality(names: Iterable[str]) -> Modality:
    """Return the modality of a dataset or of a batch.

    Args:
        names: Columns of loaded data, or names of model inputs.

    Raises:
        ValueError: If no modality has such a column or input.
    """
    present = set(names)
    for modality in MODALITIES.values():
        if modality.main_column in present or present & set(modality.main_inputs):
            return modality
    raise ValueError(f"no modality has columns or model inputs of these names: {', '.join(sorted(present))}")


def spatial_input(batch: Mapping[str, Any]) -> str | None:
    """Return the name of the spatial input of a batch, such as images; None if it has none."""
    names = (name for modality in MODALITIES.values() if modality.is_spatial for name in modality.main_inputs)
    return next((name for name in names if name in batch), None)


def fixed_size_input(batch: Mapping[str, Any]) -> str | None:
    """Return the only input of a model in a batch if it has the same shape for all examples; else None.

    Args:
        batch: Model inputs, and perhaps labels.
    """
    for modality in MODALITIES.values():
        inputs = [name for name in modality.model_inputs if name in batch]
        if modality.has_fixed_size and len(inputs) == 1 and inputs[0] in modality.main_inputs:
            return inputs[0]
    return None


def token_count(batch: Mapping[str, Any]) -> int:
    """Return the number of tokens of each sequence in a batch, padding included; 0 if its inputs have no tokens."""
    return next((int(batch[name].shape[1]) for name in _token_inputs() if name in batch), 0)


def example_tokens(example: Mapping[str, Any]) -> int:
    """Return the number of tokens of a single example, which is not padded; 0 if its inputs have no tokens."""
    return next((len(example[name]) for name in _token_inputs() if name in example), 0)


def _token_inputs() -> Iterator[str]:
    return (name for modality in MODALITIES.values() if modality.has_tokens for name in modality.main_inputs)
