"""Recipe fields for the learning-rate schedule of a stage, and the factor on the learning rate at each step."""

from abc import abstractmethod
from math import ceil, cos, floor, pi, sqrt
from typing import Annotated, ClassVar, Literal

from pydantic import Discriminator, Field, Tag

from hf_finetune.fields.base import PER_GROUP, PLAIN, Part, per_group_discriminator
from hf_finetune.fields.choice import Choice
from hf_finetune.fields.types import Count, Interval, Warmup

__all__ = [
    "LINEAR",
    "CosineWithRestarts",
    "LinearSchedule",
    "PolynomialSchedule",
    "ScheduleSpec",
    "Schedules",
    "SchedulesSpec",
]


class ScheduleSpec(Choice):
    """Learning-rate schedule after warmup."""

    shorthand = discriminator = "name"

    warmup_field: ClassVar[str] = ""
    """Field with the length of the built-in warmup; empty if the schedule has none."""

    name: str = "linear"

    def rate_factor(self, step: int, steps: int, warmup_steps: int = 0) -> float:
        """Return the factor on the peak learning rate, in [0, 1], at one optimizer step.

        It grows linearly from 0 until ``warmup_steps``, then follows the schedule until ``steps``.

        Args:
            step: Optimizer step, counted from 0.
            steps: Number of optimizer steps.
            warmup_steps: Number of warmup steps.

        Source: transformers' ``get_scheduler`` for linear, cosine, constant, polynomial, cosine_with_restarts and
            warmup_stable_decay; torch's ``ExponentialLR``, ``StepLR`` and ``OneCycleLR`` with constant momentum.
        """
        if step < warmup_steps:
            return step / warmup_steps
        return self._after_warmup(step, steps, warmup_steps)

    @abstractmethod
    def _after_warmup(self, step: int, steps: int, warmup_steps: int) -> float:
        """Return the factor at a step after warmup."""


class LinearSchedule(ScheduleSpec):
    """Linear decay to 0."""

    name: Literal["linear"] = "linear"

    def _after_warmup(self, step: int, steps: int, warmup_steps: int) -> float:
        return max(0.0, (steps - step) / _length(steps, warmup_steps))


LINEAR = LinearSchedule()
"""Default schedule."""


class CosineSchedule(ScheduleSpec):
    """Half-cosine decay to 0 (Loshchilov & Hutter 2017)."""

    name: Literal["cosine"]

    def _after_warmup(self, step: int, steps: int, warmup_steps: int) -> float:
        return _half_cosine(_progress(step, steps, warmup_steps))


class ConstantSchedule(ScheduleSpec):
    """Constant."""

    name: Literal["constant"]

    def _after_warmup(self, step: int, steps: int, warmup_steps: int) -> float:
        return 1.0


class PolynomialSchedule(ScheduleSpec):
    """Polynomial decay to 0, (1 - step/steps)^power (Chen et al. 2018, DeepLab)."""

    name: Literal["polynomial"]
    power: float = Field(default=1.0, gt=0, description="Exponent (no unit).")

    def _after_warmup(self, step: int, steps: int, warmup_steps: int) -> float:
        return (1 - _progress(step, steps, warmup_steps)) ** self.power


class ExponentialSchedule(ScheduleSpec):
    """Decay by a constant factor per step, to peak x end (torch's ExponentialLR)."""

    name: Literal["exponential"]
    end: float = Field(default=0.01, gt=0, le=1, description="Last learning rate as a fraction of the peak.")

    def _after_warmup(self, step: int, steps: int, warmup_steps: int) -> float:
        return self.end ** _progress(step, steps, warmup_steps)


class StepSchedule(ScheduleSpec):
    """Decay by a factor at regular intervals (torch's StepLR)."""

    name: Literal["step"]
    every: Interval = Field(
        default=0.34,
        description="Steps between decays (integer), or fraction of the steps after warmup (number below 1).",
    )
    factor: float = Field(default=0.1, gt=0, le=1, description="Factor on the learning rate at each decay.")

    def _after_warmup(self, step: int, steps: int, warmup_steps: int) -> float:
        interval = max(1, _steps_of(self.every, _length(steps, warmup_steps)))
        return self.factor ** ((step - warmup_steps) // interval)


class CosineWithRestarts(ScheduleSpec):
    """Several half-cosine decays from the peak to 0 (Loshchilov & Hutter 2017)."""

    name: Literal["cosine_with_restarts"]
    cycles: Count = Field(default=2, description="Number of cycles (no unit).")

    def _after_warmup(self, step: int, steps: int, warmup_steps: int) -> float:
        progress = _progress(step, steps, warmup_steps)
        return _half_cosine(self.cycles * progress % 1.0) if progress < 1 else 0.0


class OneCycleSchedule(ScheduleSpec):
    """Increase from peak / div_factor to the peak, then decay to peak / div_factor / final_div_factor.

    This is torch's OneCycleLR with constant momentum (Smith & Topin 2019).
    """

    name: Literal["one_cycle"]
    pct_start: float = Field(
        default=0.3,
        gt=0,
        lt=1,
        description="Fraction of the stage's steps in which the learning rate increases.",
    )
    div_factor: float = Field(default=25.0, ge=1, description="Initial learning rate = peak / div_factor.")
    final_div_factor: float = Field(
        default=1e4, ge=1, description="Final learning rate = initial learning rate / final_div_factor."
    )
    warmup_field = "pct_start"

    def _after_warmup(self, step: int, steps: int, warmup_steps: int) -> float:
        first = 1 / self.div_factor
        last = first / self.final_div_factor
        top, end = self.pct_start * steps - 1, steps - 1
        if step < top:
            return 1 - (1 - first) * _half_cosine(step / top)
        return last + (1 - last) * _half_cosine(min(1.0, (step - top) / (end - top)))


class WarmupStableDecay(ScheduleSpec):
    """Constant, then decay to 0 in the last steps (Hu et al. 2024, MiniCPM)."""

    name: Literal["warmup_stable_decay"]
    decay: Warmup = Field(
        default=0.2,
        description="Steps of the decay (integer), or fraction of all steps of the stage, those of the warmup included "
        "(number below 1).",
    )
    decay_type: Literal["cosine", "linear", "1-sqrt"] = Field(
        default="cosine", description="Curve of the decay (1-sqrt: Hägele et al. 2024)."
    )

    def _after_warmup(self, step: int, steps: int, warmup_steps: int) -> float:
        decay = min(_steps_of(self.decay, steps), _length(steps, warmup_steps))
        start = steps - decay
        if step < start or step >= steps:
            return 1.0 if step < start else 0.0
        progress = (step - start) / decay
        curves = {"linear": 1.0 - progress, "1-sqrt": 1.0 - sqrt(progress), "cosine": _half_cosine(progress)}
        return curves[self.decay_type]


class SlantedTriangular(ScheduleSpec):
    """Increase from peak / ratio to the peak, then decay to peak / ratio (ULMFiT, Howard & Ruder 2018)."""

    name: Literal["slanted_triangular"]
    cut_frac: float = Field(
        default=0.1,
        gt=0,
        lt=1,
        description="Fraction of the stage's steps in which the learning rate increases.",
    )
    ratio: float = Field(default=32.0, ge=1, description="Initial and final learning rate = peak / ratio.")
    warmup_field = "cut_frac"

    def _after_warmup(self, step: int, steps: int, warmup_steps: int) -> float:
        """Return the factor, which increases linearly until the cut, then decreases linearly until the last step.

        The paper divides the steps after the cut by cut x (1 / cut_frac - 1), which is their number if steps x cut_frac
        is an integer; otherwise the rate would fall below its minimum, even below 0.
        """
        cut = floor(steps * self.cut_frac + 1e-9)  # as floats, 0.29 x 100 is a little less than 29
        fraction_of_peak = step / cut if step < cut else max(0.0, 1 - (step - cut) / (steps - cut))
        return (1 + fraction_of_peak * (self.ratio - 1)) / self.ratio


class SchedulesSpec(Part):
    """One schedule for the head and one for the backbone; the warmup of the stage applies to both."""

    broadcasts_value = True

    head: ScheduleSpec = Field(description="Schedule of the head.")
    backbone: ScheduleSpec = Field(description="Schedule of all layer groups below the head.")


Schedules = Annotated[
    Annotated[ScheduleSpec, Tag(PLAIN)] | Annotated[SchedulesSpec, Tag(PER_GROUP)],
    Discriminator(per_group_discriminator(SchedulesSpec, ScheduleSpec)),
]


def _length(steps: int, warmup_steps: int) -> int:
    return max(1, steps - warmup_steps)


def _progress(step: int, steps: int, warmup_steps: int) -> float:
    return min(1.0, (step - warmup_steps) / _length(steps, warmup_steps))


def _half_cosine(progress: float) -> float:
    return max(0.0, 0.5 * (1.0 + cos(pi * progress)))


def _steps_of(length: int | float, steps: int) -> int:
    """Return a length in steps from a number of steps (int) or a fraction of all steps (float)."""
    return length if isinstance(length, int) else ceil(length * steps)
