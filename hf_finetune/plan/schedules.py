"""Schedules: the factor on the peak learning rate at each step."""

from math import cos, pi

__all__ = ["rate_factor"]


def rate_factor(step: int, name: str, steps: int, warmup_steps: int = 0, power: float = 1.0) -> float:
    """Give the factor on the peak rate, in [0, 1], at one optimiser step.

    It grows from 0 by equal amounts until ``warmup_steps``, then falls to 0 at ``steps``, or stays at 1.

    Args:
        step: Optimiser step, counted from 0.
        name: ``linear``, ``cosine``, ``constant`` or ``polynomial``.
        steps: Number of optimiser steps.
        warmup_steps: Optimiser steps until the peak.
        power: Exponent of ``polynomial``.
    Raises:
        ValueError: If there is no such schedule.
    Source: transformers' ``get_scheduler``; cosine: Loshchilov & Hutter 2017; polynomial: Chen et al. 2018 (DeepLab),
        rate x (1 - step/steps)^power.
    """
    if step < warmup_steps:
        return step / max(1, warmup_steps)
    length = max(1, steps - warmup_steps)
    gone = min(1.0, (step - warmup_steps) / length)
    if name == "constant":
        return 1.0
    if name == "linear":
        return max(0.0, (steps - step) / length)
    if name == "cosine":
        return max(0.0, 0.5 * (1.0 + cos(pi * gone)))
    if name == "polynomial":
        return (1 - gone) ** power
    raise ValueError(f"name must be linear, cosine, constant or polynomial. Got {name!r}.")
