"""Recipe fields for knowledge distillation."""

from pydantic import Field

from hf_finetune.fields.base import Part
from hf_finetune.fields.types import Location

__all__ = ["TeacherSpec"]


class TeacherSpec(Part):
    """A finished model whose probabilities a stage learns from, beside the labels: knowledge distillation."""

    shorthand = "path"

    path: Location = Field(
        description="A run directory, a checkpoint folder or a Hub id, of the same classes."
    )
    temperature: float = Field(
        default=2.0,
        gt=0,
        description="Temperature (no unit) by which the logits of both are divided; above 1 softens them.",
    )
    weight: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="Fraction of the loss that the teacher gives; the labels give the rest.",
    )
