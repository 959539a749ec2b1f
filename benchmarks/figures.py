"""Figures of a benchmark, from the raw numbers of its rounds. Pure functions on lists of numbers."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from statistics import mean, median
from typing import Any

__all__ = [
    "epoch_seconds",
    "final_accuracy",
    "later_epoch",
    "mean_of",
    "median_of",
    "median_ratio",
    "paired",
    "time_to_reach",
]

Round = Mapping[str, Any]


def median_of(values: Sequence[float | None]) -> float | None:
    """Give the median of what is there; None if nothing is."""
    there = [value for value in values if value is not None]
    return median(there) if there else None


def mean_of(values: Sequence[float | None]) -> float | None:
    """Give the mean of what is there; None if nothing is."""
    there = [value for value in values if value is not None]
    return mean(there) if there else None


def paired(base: Sequence[Round], other: Sequence[Round]) -> list[tuple[Round, Round]]:
    """Put the rounds of two contenders side by side; a round that one of them lacks is left out."""
    by_number = {each["round"]: each for each in base}
    return [(by_number[each["round"]], each) for each in other if each["round"] in by_number]


def median_ratio(base: Sequence[Round], other: Sequence[Round], key: str) -> float | None:
    """Give the median over rounds of ``base[key] / other[key]``.

    The two numbers of a ratio come from the same round, between which the least time has passed: a machine that
    becomes slower in the course of the benchmark changes both.
    """
    return median_of(
        [one[key] / two[key] for one, two in paired(base, other) if one.get(key) and two.get(key)]
    )


def epoch_seconds(evaluations: Sequence[Mapping[str, float]]) -> list[float]:
    """Give the seconds from each evaluation to the next; the first counts from the beginning.

    Args:
        evaluations: Each with the seconds that had ``elapsed`` since the beginning, in their order.
    """
    elapsed = [0.0, *(each["elapsed"] for each in evaluations)]
    return [later - earlier for earlier, later in pairwise(elapsed)]


def later_epoch(one: Round) -> float | None:
    """Give the median seconds of the epochs behind the first, which makes the cache where there is one.

    None if there is no such epoch.
    """
    return median_of(epoch_seconds(one.get("evaluations", []))[1:])


def final_accuracy(evaluations: Sequence[Mapping[str, float]]) -> float | None:
    """Give the accuracy after the last epoch; None if nothing was evaluated."""
    return evaluations[-1]["accuracy"] if evaluations else None


def time_to_reach(evaluations: Sequence[Mapping[str, float]], accuracy: float) -> float | None:
    """Give the seconds until the evaluation that first shows an accuracy; None if none does.

    Args:
        evaluations: Each with ``elapsed`` seconds and ``accuracy``, in their order.
        accuracy: To be reached, in [0, 1]. What lies below it by less than a rounding error counts.
    """
    return next((each["elapsed"] for each in evaluations if each["accuracy"] >= accuracy - 1e-9), None)
