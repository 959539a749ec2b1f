"""Modalities and tasks, one folder for each modality, and everything that depends on them."""

from hf_finetune.tasks.base import MODALITIES, TASKS, Task, modality_of, spatial_input, token_count
from hf_finetune.tasks.examples import Inputs
from hf_finetune.tasks.image import IMAGE_CLASSIFICATION
from hf_finetune.tasks.modality import Modality
from hf_finetune.tasks.text import TEXT_CLASSIFICATION

__all__ = [
    "MODALITIES",
    "TASKS",
    "Inputs",
    "Modality",
    "Task",
    "modality_of",
    "register",
    "spatial_input",
    "token_count",
]


def register(task: Task) -> None:
    """Add a task, and its modality unless another task has added it.

    Raises:
        ValueError: If the name of the task is taken, or that of its modality by another modality.
    """
    if task.modality not in MODALITIES.values():
        MODALITIES.add(task.modality)
    TASKS.add(task)


for _task in (IMAGE_CLASSIFICATION, TEXT_CLASSIFICATION):
    register(_task)
