"""Learning-rate schedules: the factor on the peak learning rate at each step."""

from math import ceil, cos, floor, pi, sqrt

from hf_finetune.recipe.schedule import ScheduleSpec

__all__ = ["draw_schedule", "rate_factor"]

SPARKS = "_.:-=+*#"
"""Characters for rates from 0 to the peak, which every terminal and every pipe supports."""
COLUMNS = 24


def rate_factor(step: int, schedule: ScheduleSpec, steps: int, warmup_steps: int = 0) -> float:
    """Return the factor on the peak learning rate, in [0, 1], at one optimizer step.

    It grows linearly from 0 until ``warmup_steps``, then follows the schedule until ``steps``. ``one_cycle`` and
    ``slanted_triangular`` include a rise and have no warmup.

    Args:
        step: Optimizer step, counted from 0.
        schedule: Name and parameters of the schedule.
        steps: Number of optimizer steps.
        warmup_steps: Number of warmup steps.

    Source: transformers' ``get_scheduler`` for linear, cosine, constant, polynomial, cosine_with_restarts and
        warmup_stable_decay; torch's ``ExponentialLR``, ``StepLR`` and ``OneCycleLR`` with constant momentum;
        cosine: Loshchilov & Hutter 2017; polynomial: Chen et al. 2018 (DeepLab), rate x (1 - step/steps)^power;
        one_cycle: Smith & Topin 2019; warmup_stable_decay: Hu et al. 2024 (MiniCPM), with 1-sqrt: Hägele et al. 2024;
        slanted_triangular: Howard & Ruder 2018.
    """
    if schedule.name == "one_cycle":
        return _one_cycle(step, steps, schedule)
    if schedule.name == "slanted_triangular":
        return _slanted_triangular(step, steps, schedule)
    if step < warmup_steps:
        return step / max(1, warmup_steps)
    length = max(1, steps - warmup_steps)
    progress = min(1.0, (step - warmup_steps) / length)
    if schedule.name == "constant":
        return 1.0
    if schedule.name == "linear":
        return max(0.0, (steps - step) / length)
    if schedule.name == "cosine":
        return _half_cosine(progress)
    if schedule.name == "cosine_with_restarts":
        return _half_cosine(schedule.cycles * progress % 1.0) if progress < 1 else 0.0
    if schedule.name == "polynomial":
        return (1 - progress) ** schedule.power
    if schedule.name == "exponential":
        return schedule.end**progress
    if schedule.name == "step":
        return schedule.factor ** ((step - warmup_steps) // max(1, _steps_of(schedule.every, length)))
    return _stable_decay(step, steps, min(_steps_of(schedule.decay, steps), length), schedule.decay_type)


def draw_schedule(schedule: ScheduleSpec, steps: int, warmup_steps: int = 0) -> str:
    """Return the learning rate over the steps as one line of text: ``_`` is 0, and ``#`` the peak.

    Args:
        schedule: Name and parameters of the schedule.
        steps: Number of optimizer steps.
        warmup_steps: Number of warmup steps.

    Returns:
        One character per step; for more than ``COLUMNS`` steps, for ``COLUMNS`` of them at equal distances.
    """
    columns = min(steps, COLUMNS)
    shown = (floor((column + 0.5) * steps / columns) for column in range(columns))
    factors = (rate_factor(step, schedule, steps, warmup_steps) for step in shown)
    return "".join(SPARKS[round(factor * (len(SPARKS) - 1))] for factor in factors)


def _half_cosine(gone: float) -> float:
    return max(0.0, 0.5 * (1.0 + cos(pi * gone)))


def _steps_of(length: int | float, steps: int) -> int:
    """Return a length in steps; it is given as a number of steps (int), or as a fraction of all steps (float)."""
    return length if isinstance(length, int) else ceil(length * steps)


def _stable_decay(step: int, steps: int, decay: int, shape: str) -> float:
    if step < steps - decay:
        return 1.0
    progress = min(1.0, (step - (steps - decay)) / max(1, decay))
    if step >= steps:
        return 0.0
    return {"linear": 1.0 - progress, "1-sqrt": 1.0 - sqrt(progress), "cosine": _half_cosine(progress)}[shape]


def _one_cycle(step: int, steps: int, schedule: ScheduleSpec) -> float:
    """Return the factor that rises in a half cosine, then falls in another to the last step, as in torch."""
    first = 1 / schedule.div_factor
    last = first / schedule.final_div_factor
    top, end = schedule.pct_start * steps - 1, steps - 1
    if step < top:
        return 1 - (1 - first) * _half_cosine(step / top)
    return last + (1 - last) * _half_cosine(min(1.0, (step - top) / (end - top)))


def _slanted_triangular(step: int, steps: int, schedule: ScheduleSpec) -> float:
    """Return the factor that rises linearly to the cut, then falls linearly to the end of the last step.

    The paper divides the steps after the cut by cut x (1 / cut_frac - 1), which is their number if steps x cut_frac is
    an integer; otherwise the rate would fall below its minimum, even below 0.
    """
    cut = floor(steps * schedule.cut_frac + 1e-9)  # as floats, 0.29 x 100 is a little less than 29
    risen = step / cut if step < cut else max(0.0, 1 - (step - cut) / (steps - cut))
    return (1 + risen * (schedule.ratio - 1)) / schedule.ratio
