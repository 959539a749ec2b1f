"""An exported model that is fed and read like the pipeline of transformers that it was made from."""

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
"""Inputs that an exported model may have, in the order of its signature."""

METADATA = ("task", "target", "labels", "logit_temperature", "decision_thresholds", "preprocessing")
"""What travels inside an exported file, each as JSON."""

Batch = dict[str, torch.Tensor]
Prepare = Callable[[Sequence[Any]], Batch]
Forward = Callable[[Batch], np.ndarray]


class ExportedPipeline:
    """Examples in, their logits out, as ``compute_logits`` calls it.

    Attributes:
        prepare: Makes the model's inputs of a few examples.
        forward: Makes logits [examples, classes] of the model's inputs.
        label_names: The classes in their order.
    """

    def __init__(self, prepare: Prepare, forward: Forward, label_names: Sequence[str]):
        self.prepare = prepare
        self.forward = forward
        self.label_names = tuple(label_names)

    def __call__(self, examples: Sequence[Any]) -> np.ndarray:
        """Return the logits [examples, classes] of a batch."""
        return self.forward(self.prepare(examples))


def model_inputs(task: Task, processor: Any) -> Prepare:
    """Make the function that prepares examples exactly as the pipeline of transformers does.

    Args:
        task: What the model classifies.
        processor: Its image processor or tokenizer.

    Returns:
        A function of a few examples: RGB images; or texts, or dictionaries of ``text`` and ``text_pair``.
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
    """Make inputs of two examples, to trace a model with: torch takes a batch of one for a constant."""
    if task == "image-classification":
        return prepare([Image.new("RGB", (64, 64), (128, 128, 128))] * 2)
    return prepare([{"text": "a text of a few words"}, {"text": "another text of a few more words"}])


def describe(classifier: Classifier) -> dict[str, str]:
    """Write down what is needed to read a model's logits, and to feed it, without any other file."""
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
    """Give the image processor or the tokenizer of a pipeline."""
    image = classifier.task == "image-classification"
    return classifier.pipe.image_processor if image else classifier.pipe.tokenizer


def exported_classifier(
    folder: Path,
    metadata: Mapping[str, str],
    forward: Forward,
    batch_size: int,
    trust_remote_code: bool = False,
) -> Classifier:
    """Join an exported model with the processor beside it.

    Args:
        folder: Holds config.json and the files of the image processor or tokenizer.
        metadata: What ``describe`` wrote, read from the exported file.
        forward: Makes logits [examples, classes] of the model's inputs.
        batch_size: Examples per forward pass. 1 is taken for a tokenizer that cannot pad.
        trust_remote_code: Whether code of the processor may run.
    """
    said = {name: json.loads(metadata[name]) for name in METADATA}
    image = said["task"] == "image-classification"
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
    prepare = model_inputs(said["task"], processor)
    return Classifier(
        pipe=ExportedPipeline(prepare, forward, said["labels"]),
        task=said["task"],
        target=said["target"],
        label_names=tuple(said["labels"]),
        batch_size=batch_size,
        temperature=said["logit_temperature"],
        thresholds=None if said["decision_thresholds"] is None else tuple(said["decision_thresholds"]),
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
