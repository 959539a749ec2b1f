"""Recordings: how they are found, read, augmented, prepared and played."""

from hf_finetune.tasks.audio.modality import Audio
from hf_finetune.tasks.base import Task

__all__ = ["AUDIO_CLASSIFICATION"]

AUDIO_CLASSIFICATION = Task(
    name="audio-classification",
    title="Audio Classification",
    modality=Audio(),
    auto_model="AutoModelForAudioClassification",
    suffixes=("ForAudioClassification", "ForSequenceClassification"),
)
