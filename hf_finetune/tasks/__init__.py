"""Task-specific code: everything that differs between tasks, and nothing else."""

from hf_finetune.tasks.base import Inputs, Task
from hf_finetune.tasks.data import load_data, table_options
from hf_finetune.tasks.image_classification import ImageClassification
from hf_finetune.tasks.text_classification import TextClassification

__all__ = ["TASKS", "Inputs", "Task", "load_data", "table_options"]

TASKS: dict[str, Task] = {task.name: task for task in (ImageClassification(), TextClassification())}
