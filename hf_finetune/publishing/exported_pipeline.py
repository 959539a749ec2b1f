"""Pipeline around an exported model, with the same inputs and logits as the original transformers pipeline."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hf_finetune.evaluation.classifier import Classifier
from hf_finetune.models.remote_code import check_tokenizer, remote_code_error
from hf_finetune.targets.decision_rule import DecisionRule
from hf_finetune.tasks import TASKS

__all__ = [
    "METADATA",
    "ExportedPipeline",
    "Forward",
    "example_inputs",
    "export_metadata",
    "load_exported_classifier",
    "model_inputs",
]

METADATA = (
    *("task", "target", "labels", "logit_temperature", "decision_thresholds", "decision_top_k"),
    "preprocessing",
)
"""Metadata keys stored in an exported file, each with a JSON value."""

Batch = dict[str, torch.Tensor]
"""Model inputs by name, each `[examples, ...]`."""
Preprocess = Callable[[Sequence[Any]], Batch]
"""Function from examples to model inputs."""
Forward = Callable[[Batch], np.ndarray]
"""Function from model inputs to logits `[examples, classes]`."""


@dataclass(frozen=True)
class ExportedPipeline:
    """Pipeline that maps a batch of examples to logits, as ``iter_logits`` calls it.

    Attributes:
        prepare: Function from a batch of examples to model inputs.
        forward: Function from model inputs to logits `[examples, classes]`.
    """

    prepare: Preprocess
    forward: Forward

    def __call__(self, examples: Sequence[Any]) -> np.ndarray:
        """Return the logits `[examples, classes]` of a batch of examples."""
        return self.forward(self.prepare(examples))


def model_inputs(classifier: Classifier) -> Preprocess:
    """Return a function that preprocesses a batch of examples exactly as the transformers pipeline does."""
    return classifier.modality.batch_inputs(get_processor(classifier))


def example_inputs(classifier: Classifier) -> Batch:
    """Return model inputs of two examples, for tracing."""
    return model_inputs(classifier)(classifier.modality.tracing_examples())


def export_metadata(classifier: Classifier) -> dict[str, str]:
    """Return the metadata of a model: all that is needed to compute its inputs and to interpret its logits.

    Returns:
        JSON text for each key of ``METADATA``.
    """
    values = {
        "task": classifier.task,
        "target": classifier.target,
        "labels": list(classifier.label_names),
        "logit_temperature": classifier.temperature,
        "decision_thresholds": classifier.rule.thresholds,
        "decision_top_k": classifier.rule.top_k,
        "preprocessing": classifier.modality.describe_processor(get_processor(classifier)),
    }
    return {name: json.dumps(value, ensure_ascii=False, default=str) for name, value in values.items()}


def get_processor(classifier: Classifier) -> Any:
    """Return the preprocessor of a classifier's pipeline."""
    return classifier.modality.get_processor(classifier.pipe)


def load_exported_classifier(
    folder: Path,
    metadata: Mapping[str, str],
    forward: Forward,
    batch_size: int,
    trust_remote_code: bool = False,
) -> Classifier:
    """Build a classifier from an exported model and the processor in the same folder.

    Args:
        folder: Folder with config.json and the files of the preprocessor.
        metadata: Metadata from ``export_metadata``, read from the exported file.
        forward: Function from model inputs to logits `[examples, classes]`.
        batch_size: Examples per forward pass; 1 is used if inputs cannot be batched.
        trust_remote_code: Whether code of the processor may run.

    Returns:
        Classifier whose pipeline is an ``ExportedPipeline``.

    Raises:
        InputError: If the processor requires remote code and ``trust_remote_code`` is False.
        OSError, ValueError: If transformers cannot load the processor for another reason.
    """
    values = {name: json.loads(metadata.get(name, "null")) for name in METADATA}
    thresholds = values["decision_thresholds"]
    modality = TASKS[values["task"]].modality
    if modality.has_tokens:
        check_tokenizer(str(folder), folder, trust_remote_code=trust_remote_code)
    try:
        processor = modality.load_processor(str(folder), trust_remote_code=trust_remote_code)
    except (OSError, ValueError) as error:
        code_error = None if trust_remote_code else remote_code_error(str(folder), folder)
        if code_error is None:
            raise
        raise code_error from error
    return Classifier(
        pipe=ExportedPipeline(modality.batch_inputs(processor), forward),
        task=values["task"],
        target=values["target"],
        label_names=tuple(values["labels"]),
        batch_size=batch_size if modality.makes_batches(processor) else 1,
        temperature=values["logit_temperature"],
        rule=DecisionRule(None if thresholds is None else tuple(thresholds), values["decision_top_k"]),
    )
