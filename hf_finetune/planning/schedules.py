"""Drawing of learning-rate schedules as text."""

from math import floor

from hf_finetune.recipe.schedule import ScheduleSpec

__all__ = ["draw_schedule"]

SPARKS = "_.:-=+*#"
"""Characters for rates from 0 to the peak, which every terminal and every pipe supports."""
COLUMNS = 24
"""Maximum number of characters."""


def draw_schedule(schedule: ScheduleSpec, steps: int, warmup_steps: int = 0) -> str:
    """Return the learning rate over the steps as one line of text: ``_`` is 0, and ``#`` the peak.

    Args:
        schedule: Name and parameters of the schedule.
        steps: Number of optimizer steps.
        warmup_steps: Number of warmup steps.

    Returns:
        One character per step, or ``COLUMNS`` characters for evenly spaced steps if there are more.
    """
    columns = min(steps, COLUMNS)
    shown = (floor((column + 0.5) * steps / columns) for column in range(columns))
    factors = (schedule.rate_factor(step, steps, warmup_steps) for step in shown)
    return "".join(SPARKS[round(factor * (len(SPARKS) - 1))] for factor in factors)
