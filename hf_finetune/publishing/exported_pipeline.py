"""Pipeline around an exported model, with the same inputs and logits as the original transformers pipeline."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoTokenizer, DataCollatorWithPadding

from hf_finetune.data.images import processor_transform
from hf_finetune.data.texts import resolve_max_length
from hf_finetune.evaluation.predictor import Classifier, Task
from hf_finetune.models.remote_code import check_tokenizer, code_refused

__all__ = [
    "INPUTS",
    "METADATA",
    "ExportedPipeline",
    "Forward",
    "describe",
    "example_inputs",
    "exported_classifier",
    "model_inputs",
    "processor_of",
]

INPUTS = ("pixel_values", "input_ids", "attention_mask", "token_type_ids")
"""Names of the inputs that an exported model may have, in the order of its signature."""

METADATA = ("task", "target", "labels", "logit_temperature", "decision_thresholds", "preprocessing")
"""Metadata keys stored in an exported file, each with a JSON value."""

Batch = dict[str, torch.Tensor]
Prepare = Callable[[Sequence[Any]], Batch]
Forward = Callable[[Batch], np.ndarray]


class ExportedPipeline:
    """Pipeline that maps a batch of examples to logits, as ``compute_logits`` calls it.

    Attributes:
        prepare: Function from a batch of examples to model inputs.
        forward: Function from model inputs to logits `[examples, classes]`.
        label_names: Class names, by class index.
    """

    def __init__(self, prepare: Prepare, forward: Forward, label_names: Sequence[str]):
        self.prepare = prepare
        self.forward = forward
        self.label_names = tuple(label_names)

    def __call__(self, examples: Sequence[Any]) -> np.ndarray:
        """Return the logits `[examples, classes]` of a batch of examples."""
        return self.forward(self.prepare(examples))


def model_inputs(task: Task, processor: Any) -> Prepare:
    """Return a function that preprocesses examples exactly as the transformers pipeline does.

    Args:
        task: Task of the model.
        processor: Image processor or tokenizer of the model.

    Returns:
        Function from a batch of examples to model inputs. An example is an RGB image, or a text, or a dictionary with
        ``text`` and perhaps ``text_pair``.
    """
    if task == "image-classification":
        transform = processor_transform(processor)
        return lambda images: {"pixel_values": torch.stack([transform(image) for image in images])}
    length = resolve_max_length(processor, None)
    collate = DataCollatorWithPadding(processor, padding=processor.pad_token_id is not None)

    def prepare(texts: Sequence[Any]) -> Batch:
        encoded = [
            processor(
                **(text if isinstance(text, Mapping) else {"text": text}), truncation=True, max_length=length
            )
            for text in texts
        ]
        batch = collate(encoded)
        return {name: batch[name] for name in INPUTS if name in batch}

    return prepare


def example_inputs(task: Task, prepare: Prepare) -> Batch:
    """Return model inputs of two examples for tracing; torch would treat a batch size of 1 as a constant."""
    if task == "image-classification":
        return prepare([Image.new("RGB", (64, 64), (128, 128, 128))] * 2)
    return prepare([{"text": "a text of a few words"}, {"text": "another text of a few more words"}])


def describe(classifier: Classifier) -> dict[str, str]:
    """Return the metadata of a model: all that is needed to compute its inputs and to interpret its logits.

    Returns:
        JSON text for each key of ``METADATA``.
    """
    return {
        name: json.dumps(value, ensure_ascii=False, default=str)
        for name, value in {
            "task": classifier.task,
            "target": classifier.target,
            "labels": list(classifier.label_names),
            "logit_temperature": classifier.temperature,
            "decision_thresholds": classifier.thresholds,
            "preprocessing": _preprocessing(classifier),
        }.items()
    }


def processor_of(classifier: Classifier) -> Any:
    """Return the image processor or the tokenizer of a classifier's pipeline."""
    image = classifier.task == "image-classification"
    return classifier.pipe.image_processor if image else classifier.pipe.tokenizer


def exported_classifier(
    folder: Path,
    metadata: Mapping[str, str],
    forward: Forward,
    batch_size: int,
    trust_remote_code: bool = False,
) -> Classifier:
    """Build a classifier from an exported model and the processor in the same folder.

    Args:
        folder: Folder with config.json and the files of the image processor or tokenizer.
        metadata: Metadata from ``describe``, read from the exported file.
        forward: Function from model inputs to logits `[examples, classes]`.
        batch_size: Examples per forward pass; a tokenizer without padding token always gets 1.
        trust_remote_code: Whether code of the processor may run.

    Returns:
        Classifier whose pipeline is an ``ExportedPipeline``.

    Raises:
        InputError: If the processor needs its own code and may not run it.
        OSError, ValueError: If transformers cannot load the processor for another reason.
    """
    values = {name: json.loads(metadata[name]) for name in METADATA}
    image = values["task"] == "image-classification"
    auto = AutoImageProcessor if image else AutoTokenizer
    if not image:
        check_tokenizer(str(folder), folder, trust_remote_code=trust_remote_code)
    try:
        processor = auto.from_pretrained(folder, trust_remote_code=trust_remote_code)
    except (OSError, ValueError) as error:
        refused = None if trust_remote_code else code_refused(str(folder), folder)
        if refused is None:
            raise
        raise refused from error
    if not image and processor.pad_token_id is None:
        batch_size = 1
    prepare = model_inputs(values["task"], processor)
    return Classifier(
        pipe=ExportedPipeline(prepare, forward, values["labels"]),
        task=values["task"],
        target=values["target"],
        label_names=tuple(values["labels"]),
        batch_size=batch_size,
        temperature=values["logit_temperature"],
        thresholds=None if values["decision_thresholds"] is None else tuple(values["decision_thresholds"]),
    )


def _preprocessing(classifier: Classifier) -> dict[str, Any]:
    processor = processor_of(classifier)
    if classifier.task == "image-classification":
        return processor.to_dict()
    return {
        "max_length": resolve_max_length(processor, None),
        "truncation_side": processor.truncation_side,
        "padding_side": processor.padding_side,
        "pad_token_id": processor.pad_token_id,
    }
