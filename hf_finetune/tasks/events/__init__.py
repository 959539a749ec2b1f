"""Histories of events: how they are joined, written as texts, tokenized and shown."""

from hf_finetune.tasks.base import Task
from hf_finetune.tasks.events.modality import Events

__all__ = ["EVENT_CLASSIFICATION"]

EVENT_CLASSIFICATION = Task(
    name="event-classification",
    title="Event Classification",
    modality=Events(),
    auto_model="AutoModelForSequenceClassification",
    suffixes=("ForSequenceClassification",),
    served_as="text-classification",
)
