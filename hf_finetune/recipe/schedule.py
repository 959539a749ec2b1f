"""Recipe fields for the learning-rate schedule of a stage."""

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, SerializerFunctionWrapHandler, Tag, model_serializer

from hf_finetune.fields.base import PER_GROUP, PLAIN, Part, form_of
from hf_finetune.fields.types import Count, Warmup
from hf_finetune.recipe.rules import OF_SCHEDULES

__all__ = ["ScheduleName", "ScheduleSpec", "Schedules", "SchedulesSpec"]

ScheduleName = Literal[
    "linear",
    "cosine",
    "constant",
    "polynomial",
    "exponential",
    "step",
    "cosine_with_restarts",
    "one_cycle",
    "warmup_stable_decay",
    "slanted_triangular",
]


class ScheduleSpec(Part):
    """How the learning rate goes behind the warmup. Each field but the name belongs to the schedules that it names."""

    shorthand = "name"

    name: ScheduleName = Field(
        default="linear", description="Shape of the learning rate over the stage's steps."
    )
    power: float = Field(
        default=1.0, gt=0, description="Exponent (no unit) of polynomial: rate x (1 - step/steps)^power."
    )
    end: float = Field(
        default=0.01,
        gt=0,
        le=1,
        description="Fraction of the peak rate that exponential comes to, by equal factors from step to step.",
    )
    every: Warmup = Field(
        default=0.34,
        description="Steps between the drops of step; below 1 = a fraction of those behind the warmup.",
    )
    factor: float = Field(
        default=0.1, gt=0, le=1, description="Factor on the rate (no unit) at each drop of step."
    )
    cycles: Count = Field(
        default=2, description="Number of times (no unit) that cosine_with_restarts falls from the peak to 0."
    )
    pct_start: float = Field(
        default=0.3, gt=0, lt=1, description="Fraction of the stage's steps in which one_cycle rises."
    )
    div_factor: float = Field(
        default=25.0, ge=1, description="Peak rate of one_cycle divided by its first one (no unit)."
    )
    final_div_factor: float = Field(
        default=1e4, ge=1, description="First rate of one_cycle divided by its last one (no unit)."
    )
    decay: Warmup = Field(
        default=0.2,
        description="Steps at the end in which warmup_stable_decay falls; below 1 = a fraction of the stage's.",
    )
    decay_type: Literal["cosine", "linear", "1-sqrt"] = Field(
        default="cosine", description="How warmup_stable_decay falls at the end: cosine, linear or 1-sqrt."
    )
    cut_frac: float = Field(
        default=0.1,
        gt=0,
        lt=1,
        description="Fraction of the stage's steps in which slanted_triangular rises.",
    )
    ratio: float = Field(
        default=32.0,
        ge=1,
        description="Peak rate of slanted_triangular divided by its first and last one (no unit).",
    )

    @model_serializer(mode="wrap")
    def _leave_out_other_schedules(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Serialize the fields that this schedule uses, and any other that is set, so that the rules report it."""
        fields: dict[str, Any] = write(self)
        return {
            field: value
            for field, value in fields.items()
            if field not in OF_SCHEDULES
            or OF_SCHEDULES[field][0] == self.name
            or OF_SCHEDULES[field][1] != value
        }


class SchedulesSpec(Part):
    """A schedule for the head and one for the backbone; the warmup is that of the stage."""

    spreads = True

    head: ScheduleSpec = Field(description="Shape of the head's learning rate.")
    backbone: ScheduleSpec = Field(description="Shape of the learning rate of every other layer group.")


Schedules = Annotated[
    Annotated[ScheduleSpec, Tag(PLAIN)] | Annotated[SchedulesSpec, Tag(PER_GROUP)],
    Discriminator(form_of(SchedulesSpec, ScheduleSpec)),
]
