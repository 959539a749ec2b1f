"""Whether a setting is better than the one it is compared with, from runs with several seeds on the same examples."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.kit.results import Effect, unpack

__all__ = ["BETTER", "UNSEEN", "WORSE", "Comparison", "compare", "signed"]

RESAMPLES = 2_000
LEVEL = 0.95
BETTER, WORSE, UNSEEN = "better", "worse", "no difference seen"


@dataclass(frozen=True)
class Comparison:
    """A setting beside the one it is compared with.

    Attributes:
        mean: Mean of the metric over the seeds.
        difference: From the mean of the other.
        interval: 95 % interval of the difference.
    """

    mean: float
    difference: float
    interval: tuple[float, float]

    @property
    def verdict(self) -> str:
        """Say what the interval allows to say."""
        low, high = self.interval
        return BETTER if low > 0 else WORSE if high < 0 else UNSEEN


def compare(rows: Sequence[Effect], others: Sequence[Effect]) -> Comparison:
    """Compare runs with those of the same seeds.

    The interval holds what chance there is in the seeds and in the test examples: both are drawn anew with
    replacement, seeds first, and the same examples for all of them (percentiles of the bootstrap).

    Args:
        rows: Of one setting, one for each seed.
        others: Of the setting it is compared with.

    Source: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapters 8 and 13.
    """
    pairs = {row.seed: row for row in others}
    in_order = sorted(rows, key=lambda row: row.seed)  # whichever was measured first
    apart = np.stack([_scores(row) - _scores(pairs[row.seed]) for row in in_order])
    chance = np.random.default_rng(0)
    seeds, examples = apart.shape
    drawn = np.empty(RESAMPLES)
    for number in range(RESAMPLES):
        chosen = apart[chance.integers(seeds, size=seeds)].mean(axis=0)
        drawn[number] = chosen[chance.integers(examples, size=examples)].mean()
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    mean = float(np.mean([row.value for row in rows]))
    difference = mean - float(np.mean([pairs[row.seed].value for row in rows]))
    return Comparison(mean, difference, (float(low), float(high)))


def signed(value: float) -> str:
    """Write a difference with its sign and three digits behind the point."""
    return f"{round(value, 3) + 0.0:+.3f}"  # what is rounded to -0.0 becomes +0.0


def _scores(row: Effect) -> np.ndarray:
    right = unpack(row.right, row.examples)
    return right * np.asarray(row.weights) if row.weights else right
