"""Comparison of a setting with a reference, from runs with several seeds on the same examples."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.kit.results import Effect, unpack

__all__ = ["BETTER", "NOT_SIGNIFICANT", "WORSE", "Comparison", "compare", "signed"]

RESAMPLES = 2_000
LEVEL = 0.95
BETTER, WORSE, NOT_SIGNIFICANT = "better", "worse", "not significant"


@dataclass(frozen=True)
class Comparison:
    """Comparison of a setting with the reference.

    Attributes:
        mean: Mean of the metric over the seeds.
        difference: Difference from the mean of the reference.
        interval: 95 % interval of the difference.
    """

    mean: float
    difference: float
    interval: tuple[float, float]

    @property
    def verdict(self) -> str:
        """Result of the comparison: whether the interval excludes 0."""
        low, high = self.interval
        return BETTER if low > 0 else WORSE if high < 0 else NOT_SIGNIFICANT


def compare(rows: Sequence[Effect], others: Sequence[Effect]) -> Comparison:
    """Compare runs with those of a reference with the same seeds.

    The interval (percentiles of the bootstrap) covers the variation over seeds and over test examples: seeds are
    resampled first, then examples, the same for all seeds.

    Args:
        rows: Runs of a setting, one per seed.
        others: Runs of the reference.

    Source: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapters 8 and 13.
    """
    pairs = {row.seed: row for row in others}
    in_order = sorted(rows, key=lambda row: row.seed)
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
    """Return a difference with its sign and three decimals."""
    return f"{round(value, 3) + 0.0:+.3f}"  # what is rounded to -0.0 becomes +0.0


def _scores(row: Effect) -> np.ndarray:
    right = unpack(row.right, row.examples)
    return right * np.asarray(row.weights) if row.weights else right
