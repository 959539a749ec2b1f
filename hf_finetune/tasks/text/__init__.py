"""Texts and pairs of texts: how they are found, read, augmented, tokenized and shown."""

from hf_finetune.tasks.base import Task
from hf_finetune.tasks.text.modality import Text

__all__ = ["TEXT_CLASSIFICATION"]

TEXT_CLASSIFICATION = Task(
    name="text-classification",
    title="Text Classification",
    modality=Text(),
    auto_model="AutoModelForSequenceClassification",
    suffixes=("ForSequenceClassification",),
)
