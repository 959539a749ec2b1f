"""Images: how they are found, read, augmented, prepared and shown."""

from hf_finetune.tasks.base import Task
from hf_finetune.tasks.image.modality import Image

__all__ = ["IMAGE_CLASSIFICATION"]

IMAGE_CLASSIFICATION = Task(
    name="image-classification",
    title="Image Classification",
    modality=Image(),
    auto_model="AutoModelForImageClassification",
    suffixes=("ForImageClassification",),
)
