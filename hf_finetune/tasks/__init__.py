"""Modalities (kinds of model inputs) and tasks (a modality with an auto class); registers the built-in ones."""

from hf_finetune.tasks.audio import AUDIO_CLASSIFICATION
from hf_finetune.tasks.base import (
    MODALITIES,
    TASKS,
    Task,
    example_tokens,
    find_modality,
    fixed_size_input,
    spatial_input,
    token_count,
)
from hf_finetune.tasks.events import EVENT_CLASSIFICATION
from hf_finetune.tasks.examples import Inputs
from hf_finetune.tasks.image import IMAGE_CLASSIFICATION
from hf_finetune.tasks.items import NEXT_ITEM
from hf_finetune.tasks.modality import Modality
from hf_finetune.tasks.ranking import TEXT_RANKING
from hf_finetune.tasks.series import TIME_SERIES_FORECASTING
from hf_finetune.tasks.speech import AUTOMATIC_SPEECH_RECOGNITION
from hf_finetune.tasks.text import TEXT_CLASSIFICATION

__all__ = [
    "MODALITIES",
    "TASKS",
    "Inputs",
    "Modality",
    "Task",
    "example_tokens",
    "find_modality",
    "fixed_size_input",
    "register",
    "spatial_input",
    "token_count",
]


def register(task: Task) -> None:
    """Add a task, and its modality unless another task has added it.

    Raises:
        ValueError: If the name of the task, or of its modality, is already registered for another object.
    """
    if task.modality not in MODALITIES.values():
        MODALITIES.add(task.modality)
    TASKS.add(task)


for _task in (
    IMAGE_CLASSIFICATION,
    TEXT_CLASSIFICATION,
    AUDIO_CLASSIFICATION,
    EVENT_CLASSIFICATION,
    AUTOMATIC_SPEECH_RECOGNITION,
    NEXT_ITEM,
    TIME_SERIES_FORECASTING,
    TEXT_RANKING,
):
    register(_task)
