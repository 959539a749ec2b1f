"""How far a metric would move on other test examples: bootstrap intervals.

Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapters 13 (percentile) and 14 (BCa).
"""

import warnings
from collections.abc import Sequence

import numpy as np
from scipy.stats import DegenerateDataWarning, binomtest, bootstrap

from hf_finetune.data.labels import Target
from hf_finetune.evaluation.resampling import FRACTIONS, Statistic, is_fast, statistic

__all__ = ["LEVEL", "Interval", "bootstrap_difference", "intervals"]

LEVEL = 0.95
RESAMPLES = 2000
SLOW_RESAMPLES = 200
"""For metrics that are computed resample by resample."""
MOST_CORRECTED = 2000
"""Examples up to which the interval is corrected for bias and skew (BCa); that takes one more resample for each, and
for more examples it corrects next to nothing."""
NUMBERS = 4_000_000
"""Most indices that are drawn at once."""

Interval = tuple[float, float]


def intervals(
    names: Sequence[str],
    target: Target,
    scores: np.ndarray,
    labels: np.ndarray,
    *,
    seed: int,
    thresholds: Sequence[float] | None = None,
) -> dict[str, Interval | None]:
    """Compute the 95 % interval of each metric.

    Args:
        names: Of metrics.
        target: What the labels are.
        scores: Probabilities [examples, classes], or amounts [examples].
        labels: Class indices [examples], zeros and ones [examples, classes], or amounts [examples].
        seed: Of the resamples.
        thresholds: From which probability on each class of multi-label data holds; None is 0.5 for all.

    Returns:
        Lower and upper end by name; None where the metric is undefined on some resamples, or there is one example.
    """
    found: dict[str, Interval | None] = {}
    for name in names:
        compute = statistic(name, target, labels, scores, thresholds)
        (value,) = compute(np.arange(len(labels))[None])
        if name in FRACTIONS and value in (0.0, 1.0):  # all resamples are alike, and others would not be
            exact = binomtest(round(value * len(labels)), len(labels)).proportion_ci(LEVEL, "exact")
            found[name] = float(exact.low), float(exact.high)
        else:
            found[name] = _bootstrapped(compute, len(labels), fast=is_fast(name), seed=seed)[0]
    return found


def bootstrap_difference(
    first: Statistic, other: Statistic, examples: int, *, fast: bool, seed: int
) -> tuple[Interval | None, float | None]:
    """Compare a metric of two models on the same examples, which are resampled for both of them together.

    Args:
        first: The metric of the one.
        other: The metric of the other.
        examples: How many there are.
        fast: Whether many resamples are computed at once.
        seed: Of the resamples.

    Returns:
        The 95 % interval of ``other - first``, and twice the share of resamples on the rarer side of 0; None where it
        is undefined on some resamples.
    """
    interval, drawn = _bootstrapped(
        lambda indices: other(indices) - first(indices), examples, fast=fast, seed=seed
    )
    if interval is None:
        return None, None
    rarer = min((drawn <= 0).sum(), (drawn >= 0).sum())
    return interval, min(1.0, float(2 * (rarer + 1) / (len(drawn) + 1)))


def _bootstrapped(
    compute: Statistic, examples: int, *, fast: bool, seed: int
) -> tuple[Interval | None, np.ndarray]:
    """Give the interval, and the values of the resamples."""
    if examples < 2:
        return None, np.empty(0)

    def of(indices: np.ndarray, axis: int = -1) -> np.ndarray:
        return compute(indices.reshape(-1, indices.shape[-1])).reshape(indices.shape[:-1])

    for method in ("BCa", "percentile") if fast and examples <= MOST_CORRECTED else ("percentile",):
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore", DegenerateDataWarning)  # the other method comes next
            found = bootstrap(
                (np.arange(examples),),
                of,
                n_resamples=RESAMPLES if fast else SLOW_RESAMPLES,
                batch=max(1, NUMBERS // examples),
                vectorized=True,
                confidence_level=LEVEL,
                method=method,
                rng=np.random.default_rng(seed),
            )
        ends = found.confidence_interval
        if np.isfinite([ends.low, ends.high]).all():
            return (float(ends.low), float(ends.high)), found.bootstrap_distribution
    return None, np.empty(0)
