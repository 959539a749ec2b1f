"""Recipe fields for knowledge distillation."""

from pydantic import Field

from hf_finetune.fields.base import Part
from hf_finetune.fields.types import Location

__all__ = ["TeacherSpec"]


class TeacherSpec(Part):
    """Teacher for knowledge distillation: a finished model whose probabilities are used in addition to the labels."""

    shorthand = "path"

    path: Location = Field(
        description="Run directory, checkpoint folder or Hub id of a finished model with the same classes and "
        "inputs (tokenizer, or image size and normalization)."
    )
    temperature: float = Field(
        default=2.0,
        gt=0,
        description="Temperature (no unit) by which the logits of both models are divided; values above 1 soften "
        "their probabilities (Hinton et al. 2015).",
    )
    weight: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="Fraction of the loss that is computed with the teacher's probabilities; the rest is computed "
        "with the labels.",
    )
