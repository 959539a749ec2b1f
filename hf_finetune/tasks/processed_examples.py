"""Model inputs of examples that are preprocessed in training as they are for inference."""

from typing import TYPE_CHECKING, Any

import torch
from transformers import default_data_collator

from hf_finetune.targets.labels import class_count, encode_batch
from hf_finetune.tasks.examples import Inputs, Splits

if TYPE_CHECKING:
    from hf_finetune.tasks.modality import Modality

__all__ = ["ProcessedExamples", "processed_inputs"]


class ProcessedExamples(torch.utils.data.Dataset):
    """Dataset of model inputs and labels, each computed when it is read.

    Args:
        rows: Dataset with the columns of the modality, and perhaps ``label``.
        modality: Kind of input.
        processor: Configured preprocessor.
        training: Whether labels include example weights and class probabilities for the loss.
    """

    def __init__(self, rows: Any, modality: "Modality", processor: Any, *, training: bool):
        self.rows, self.modality, self.processor, self.training = rows, modality, processor, training
        self.classes = class_count(rows.features)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        row = self.rows[index]
        prepare = self.modality.batch_inputs(self.processor)
        inputs = {name: values[0] for name, values in prepare([self.modality.pipeline_input(row)]).items()}
        if "label" in row:
            labels = {name: [value] for name, value in row.items()}
            inputs["labels"] = encode_batch(labels, self.classes, training=self.training)[0]
        return inputs


def processed_inputs(splits: Splits, modality: "Modality", processor: Any) -> Inputs:
    """Return the inputs of both splits, which are not augmented.

    Args:
        splits: Splits with the columns of the modality and of the labels.
        modality: Kind of input.
        processor: Configured preprocessor.
    """
    validation = splits.validation
    return Inputs(
        train=ProcessedExamples(splits.train, modality, processor, training=True),
        validation=None
        if validation is None
        else ProcessedExamples(validation, modality, processor, training=False),
        collate=default_data_collator,
    )
