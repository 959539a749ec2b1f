"""Precision of metrics on a validation split: the smallest difference that is not due to chance."""

from math import sqrt
from statistics import NormalDist

from hf_finetune.evaluation.registry import find_metric

__all__ = ["LEVEL", "MAX_HALF_WIDTH", "half_width", "resolution_note"]

LEVEL = 0.95
"""Confidence level of all intervals."""
MAX_HALF_WIDTH = 0.05
"""Half-width of the 95 % interval of a proportion of 0.5 above which a split is too small: 380 units or fewer."""


def half_width(units: int) -> float:
    """Return the half-width of the 95 % interval of a proportion of 0.5, the proportion with the widest interval.

    Args:
        units: Number of independent examples, or of groups if the examples are grouped.

    Source: Wilson 1927, the score interval: z / (2 sqrt(n + z^2)) at 0.5.
    """
    z = NormalDist().inv_cdf((1 + LEVEL) / 2)
    return z / (2 * sqrt(units + z**2))


def resolution_note(metric: str, examples: int, groups: int | None = None) -> str | None:
    """Return a note on a validation split that is too small to distinguish epochs; None if it is large enough.

    A split is too small if ``half_width`` of its examples, or of its groups, exceeds ``MAX_HALF_WIDTH``.

    Args:
        metric: Name of the metric that selects the checkpoint.
        examples: Number of validation examples.
        groups: Number of groups of the examples; None if the examples are independent.
    """
    width = half_width(examples if groups is None else groups)
    if width <= MAX_HALF_WIDTH:
        return None
    size = f"{examples:,} {'example' if examples == 1 else 'examples'}"
    if groups is not None:
        size += f" in {groups:,} {'group' if groups == 1 else 'groups'}"
    if (known := find_metric(metric)) is not None and known.is_fraction:
        return (
            f"The validation split has only {size}: the 95 % confidence interval of {metric} is about ±{width:.2f}, so "
            "smaller differences between epochs may be due to chance."
        )
    return (
        f"The validation split has only {size}, on which the 95 % confidence interval of a proportion is about "
        f"±{width:.2f}: small differences of {metric} between epochs may be due to chance."
    )
