"""Bootstrap confidence intervals of metrics: their sampling uncertainty.

If the examples are grouped, whole groups are resampled, each with all of its examples (the cluster bootstrap of
Davison and Hinkley, Bootstrap Methods and their Application, 1997, section 3.8).

Source: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapters 13 (percentile) and 14 (BCa); Hesterberg,
What Teachers Should Know About the Bootstrap, 2015, section 5.3 (percentile intervals widened as t intervals are, which
matters when there are few units).
"""

import warnings
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np
from scipy.stats import DegenerateDataWarning, binomtest, bootstrap, norm, t

from hf_finetune.evaluation.metrics import compute_metrics, metric_for
from hf_finetune.evaluation.resolution import LEVEL
from hf_finetune.targets.metric import Metric, Statistic
from hf_finetune.targets.scored_examples import ScoredExamples

__all__ = [
    "LEVEL",
    "MIN_RELIABLE_GROUPS",
    "Interval",
    "bootstrap_difference",
    "intervals",
    "resampling_units",
    "statistic",
]

RESAMPLES = 2000
SLOW_RESAMPLES = 200
"""Number of resamples for metrics that are computed one resample at a time."""
MAX_BCA_UNITS = 2000
"""Number of units (examples or groups) up to which the interval is corrected for bias and skewness (BCa). The
correction takes one more resample per unit, and with more units it is negligible."""
MIN_RELIABLE_GROUPS = 10
"""Number of groups below which an interval is unreliable."""
MAX_COUNTS_IN_MEMORY = 4_000_000
"""Maximum number of counts in memory at once."""

Interval = tuple[float, float]


def intervals(names: Sequence[str], examples: ScoredExamples, *, seed: int) -> dict[str, Interval | None]:
    """Compute the 95 % interval of each metric.

    Args:
        names: Names of the metrics.
        examples: Labels and scores. If they have groups, these are resampled as a whole; otherwise the examples are
            resampled one by one.
        seed: Seed of the bootstrap.

    Returns:
        Lower and upper end by metric; None where the metric is undefined on some resamples, or where there is only one
        example or group. A metric that is a fraction of the examples, and is 0 or 1, always has an interval: the exact
        binomial one.
    """
    units = resampling_units(examples)
    by_metric: dict[str, Interval | None] = {}
    for name in names:
        metric = metric_for(name, examples)
        compute = statistic(metric, examples)
        (value,) = compute(np.ones((1, len(examples))))
        # All resamples have the same value, although other test examples might not: take the exact interval.
        if metric.is_fraction and value in (0.0, 1.0):
            count = int(units.max()) + 1
            exact = binomtest(round(value * count), count).proportion_ci(LEVEL, "exact")
            by_metric[name] = float(exact.low), float(exact.high)
        else:
            by_metric[name] = _bootstrap_interval(compute, units, fast=metric.is_fast, seed=seed)[0]
    return by_metric


def statistic(metric: Metric, examples: ScoredExamples) -> Statistic:
    """Return a function that computes a metric of resamples.

    Args:
        metric: Metric, from ``metric_for``.
        examples: Labels and scores.

    Returns:
        Function from counts [resamples, examples], integers stored as floats, to the metric of each resample
        [resamples].
    """
    if metric.needs_all_scores and not examples.has_all_scores:
        return lambda counts: np.full(len(counts), np.nan)
    if metric.resampled is not None:
        return metric.resampled(examples)
    if metric.per_example is not None:
        values = metric.per_example(examples).astype(np.float64)
        return lambda counts: counts @ values / counts.sum(axis=1)
    return partial(_one_by_one, metric.name, examples)


def _one_by_one(name: str, examples: ScoredExamples, counts: np.ndarray) -> np.ndarray:
    resamples = (replace(examples, weights=multiplicities) for multiplicities in counts)
    return np.array([compute_metrics([name], resample)[name] for resample in resamples])


def bootstrap_difference(
    first: Statistic, second: Statistic, units: np.ndarray, *, fast: bool, seed: int
) -> tuple[Interval | None, float | None]:
    """Compute the paired bootstrap interval and p-value of the difference of a metric between two models.

    Each resample is drawn once and used for both models.

    Args:
        first: Metric of the first model, as a function of the counts of a resample.
        second: Metric of the second model, in the same form.
        units: Resampling unit of each example [examples], from ``resampling_units``.
        fast: Whether many resamples are computed at once, see ``Metric.is_fast``.
        seed: Seed of the bootstrap.

    Returns:
        The 95 % interval of ``second - first``, and the two-sided p-value: twice the share of resamples on the rarer
        side of 0. Both are None if the difference is undefined on some resamples.
    """
    interval, resamples = _bootstrap_interval(
        lambda counts: second(counts) - first(counts), units, fast=fast, seed=seed
    )
    if interval is None:
        return None, None
    rarer = min((resamples <= 0).sum(), (resamples >= 0).sum())
    return interval, min(1.0, float(2 * (rarer + 1) / (len(resamples) + 1)))


def resampling_units(examples: ScoredExamples) -> np.ndarray:
    """Return the index of the resampling unit of each example [examples]: that of its group, or its own.

    Args:
        examples: Labels and scores, perhaps with groups.
    """
    if examples.groups is None:
        return np.arange(len(examples))
    return np.unique(examples.groups, return_inverse=True)[1]


def _bootstrap_interval(
    compute: Statistic, units: np.ndarray, *, fast: bool, seed: int
) -> tuple[Interval | None, np.ndarray]:
    """Return the interval and the values of the resamples [resamples]; None and an empty array if undefined."""
    count = int(units.max()) + 1
    if count < 2:
        return None, np.empty(0)
    ungrouped = np.array_equal(units, np.arange(count))

    def statistic_of_resamples(indices: np.ndarray, axis: int = -1) -> np.ndarray:
        resamples = indices.reshape(-1, indices.shape[-1])
        offsets = np.arange(len(resamples))[:, None] * count
        multiplicities = np.bincount((resamples + offsets).ravel(), minlength=len(resamples) * count).reshape(
            -1, count
        )
        counts = multiplicities if ungrouped else multiplicities[:, units]
        return compute(counts.astype(np.float64)).reshape(indices.shape[:-1])

    for method in ("BCa", "percentile") if fast and count <= MAX_BCA_UNITS else ("percentile",):
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore", DegenerateDataWarning)  # the percentile method is tried next
            result = bootstrap(
                (np.arange(count),),
                statistic_of_resamples,
                n_resamples=RESAMPLES if fast else SLOW_RESAMPLES,
                batch=max(1, MAX_COUNTS_IN_MEMORY // len(units)),
                vectorized=True,
                confidence_level=_adjusted_confidence_level(count),
                method=method,
                rng=np.random.default_rng(seed),
            )
        ends = result.confidence_interval
        if np.isfinite([ends.low, ends.high]).all():
            return (float(ends.low), float(ends.high)), result.bootstrap_distribution
    return None, np.empty(0)


def _adjusted_confidence_level(units: int) -> float:
    """Return the nominal level at which a bootstrap interval of few units has the coverage ``LEVEL``.

    The standard deviation over resamples of n units is too small by the factor sqrt((n - 1) / n), and a t quantile has
    to replace the normal one.

    Source: Hesterberg 2015, section 5.3.
    """
    quantile = t.ppf((1 + LEVEL) / 2, units - 1) * np.sqrt(units / (units - 1))
    return float(1 - 2 * norm.sf(quantile))
