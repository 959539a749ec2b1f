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
    """Learning rate after warmup. Each field except the name applies to the schedule that it names."""

    shorthand = "name"

    name: ScheduleName = Field(
        default="linear",
        description="Learning rate after warmup: linear = falls to 0 linearly; cosine = falls to 0 in half a cosine "
        "(Loshchilov & Hutter 2017); constant = stays constant; polynomial = falls to 0 as (1 - step/steps)^power "
        "(Chen et al. 2018, DeepLab); exponential = falls by a constant factor per step, to peak x end (torch's "
        "ExponentialLR); step = drops by a factor at regular intervals (torch's StepLR); cosine_with_restarts = "
        "falls from the peak to 0 in half a cosine, several times (Loshchilov & Hutter 2017); one_cycle = rises "
        "from peak / div_factor to the peak, then falls to peak / div_factor / final_div_factor (Smith & Topin "
        "2019, as in torch; the momentum is constant); warmup_stable_decay = stays constant, and falls to 0 in the "
        "last steps (Hu et al. 2024, MiniCPM); slanted_triangular = rises from peak / ratio to the peak, then "
        "falls to peak / ratio (ULMFiT, Howard & Ruder 2018).",
    )
    power: float = Field(default=1.0, gt=0, description="For polynomial: exponent (no unit).")
    end: float = Field(
        default=0.01,
        gt=0,
        le=1,
        description="For exponential: last learning rate as a fraction of the peak.",
    )
    every: Warmup = Field(
        default=0.34,
        description="For step: steps from one drop to the next; below 1, a fraction of the steps after warmup.",
    )
    factor: float = Field(
        default=0.1, gt=0, le=1, description="For step: factor on the learning rate at each drop."
    )
    cycles: Count = Field(
        default=2, description="For cosine_with_restarts: number of falls from the peak to 0 (no unit)."
    )
    pct_start: float = Field(
        default=0.3,
        gt=0,
        lt=1,
        description="For one_cycle: fraction of the stage's steps in which the learning rate rises.",
    )
    div_factor: float = Field(
        default=25.0, ge=1, description="For one_cycle: peak learning rate divided by the first one."
    )
    final_div_factor: float = Field(
        default=1e4, ge=1, description="For one_cycle: first learning rate divided by the last one."
    )
    decay: Warmup = Field(
        default=0.2,
        description="For warmup_stable_decay: steps in which the learning rate falls; below 1, a fraction of the "
        "stage's steps.",
    )
    decay_type: Literal["cosine", "linear", "1-sqrt"] = Field(
        default="cosine", description="For warmup_stable_decay: curve of the fall."
    )
    cut_frac: float = Field(
        default=0.1,
        gt=0,
        lt=1,
        description="For slanted_triangular: fraction of the stage's steps in which the learning rate rises.",
    )
    ratio: float = Field(
        default=32.0,
        ge=1,
        description="For slanted_triangular: peak learning rate divided by the first and last one.",
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

    head: ScheduleSpec = Field(description="Schedule of the head.")
    backbone: ScheduleSpec = Field(description="Schedule of all layer groups below the head.")


Schedules = Annotated[
    Annotated[ScheduleSpec, Tag(PLAIN)] | Annotated[SchedulesSpec, Tag(PER_GROUP)],
    Discriminator(form_of(SchedulesSpec, ScheduleSpec)),
]
