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
    """Return the median of the values that are not None; None if there are none."""
    there = [value for value in values if value is not None]
    return median(there) if there else None


def mean_of(values: Sequence[float | None]) -> float | None:
    """Return the mean of the values that are not None; None if there are none."""
    there = [value for value in values if value is not None]
    return mean(there) if there else None


def paired(base: Sequence[Round], other: Sequence[Round]) -> list[tuple[Round, Round]]:
    """Return pairs of the rounds of two contenders; rounds that only one of them has are left out."""
    by_number = {each["round"]: each for each in base}
    return [(by_number[each["round"]], each) for each in other if each["round"] in by_number]


def median_ratio(base: Sequence[Round], other: Sequence[Round], key: str) -> float | None:
    """Return the median over rounds of ``base[key] / other[key]``.

    Both numbers of a ratio come from the same round, so that a machine that becomes slower during the benchmark
    affects both.
    """
    return median_of(
        [one[key] / two[key] for one, two in paired(base, other) if one.get(key) and two.get(key)]
    )


def epoch_seconds(evaluations: Sequence[Mapping[str, float]]) -> list[float]:
    """Return the seconds from each evaluation to the next; the first counts from the start.

    Args:
        evaluations: Evaluations in their order, each with the seconds ``elapsed`` since the start.
    """
    elapsed = [0.0, *(each["elapsed"] for each in evaluations)]
    return [later - earlier for earlier, later in pairwise(elapsed)]


def later_epoch(one: Round) -> float | None:
    """Return the median seconds of the epochs after the first, which fills the cache if there is one.

    None if there is no such epoch.
    """
    return median_of(epoch_seconds(one.get("evaluations", []))[1:])


def final_accuracy(evaluations: Sequence[Mapping[str, float]]) -> float | None:
    """Return the accuracy after the last epoch; None if nothing was evaluated."""
    return evaluations[-1]["accuracy"] if evaluations else None


def time_to_reach(evaluations: Sequence[Mapping[str, float]], accuracy: float) -> float | None:
    """Return the seconds until the first evaluation that reaches an accuracy; None if none does.

    Args:
        evaluations: Evaluations in their order, each with ``elapsed`` seconds and ``accuracy``.
        accuracy: Accuracy to reach, in [0, 1], except for rounding.
    """
    return next((each["elapsed"] for each in evaluations if each["accuracy"] >= accuracy - 1e-9), None)
