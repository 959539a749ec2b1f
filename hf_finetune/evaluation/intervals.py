"""Bootstrap confidence intervals of metrics: how far a metric would vary on other test examples.

If the examples are grouped, whole groups are resampled, each with all of its examples (the cluster bootstrap of
Davison and Hinkley, Bootstrap Methods and their Application, 1997, section 3.8).

Source: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapters 13 (percentile) and 14 (BCa); Hesterberg,
What Teachers Should Know About the Bootstrap, 2015, section 5.3 (percentile intervals widened as t intervals are, which
matters when there are few units).
"""

import warnings
from collections.abc import Sequence

import numpy as np
from scipy.stats import DegenerateDataWarning, binomtest, bootstrap, norm, t

from hf_finetune.evaluation.resampling import Statistic, is_fast, is_fraction, statistic
from hf_finetune.targets.labels import Target
from hf_finetune.targets.metric import NO_SETTINGS, MetricSettings

__all__ = ["FEW_GROUPS", "LEVEL", "Interval", "bootstrap_difference", "intervals"]

LEVEL = 0.95
RESAMPLES = 2000
SLOW_RESAMPLES = 200
"""Number of resamples for metrics that are computed one resample at a time."""
MOST_CORRECTED = 2000
"""Number of units (examples or groups) up to which the interval is corrected for bias and skewness (BCa). The
correction takes one more resample per unit, and with more units it is negligible."""
FEW_GROUPS = 10
"""Number of groups below which an interval is unreliable."""
NUMBERS = 4_000_000
"""Maximum number of counts in memory at once."""

Interval = tuple[float, float]


def intervals(
    names: Sequence[str],
    target: Target,
    scores: np.ndarray,
    labels: np.ndarray,
    *,
    seed: int,
    thresholds: Sequence[float] | None = None,
    groups: Sequence[str] | None = None,
    settings: MetricSettings = NO_SETTINGS,
) -> dict[str, Interval | None]:
    """Compute the 95 % interval of each metric.

    Args:
        names: Names of the metrics.
        target: Label type: ``single_label``, ``multi_label`` or ``regression``.
        scores: Probabilities [examples, classes], or regression predictions [examples].
        labels: Class indices [examples], zeros and ones [examples, classes], or regression targets [examples].
        seed: Seed of the bootstrap.
        thresholds: Decision threshold of each class (multi-label); None is 0.5 for all classes.
        groups: Group of each example; groups are resampled as a whole. None resamples the examples one by one.
        settings: Classes and costs, for the metrics that need them.

    Returns:
        Lower and upper end by metric; None where the metric is undefined on some resamples, or where there is only one
        example or group.
    """
    units = _units(groups, len(labels))
    by_metric: dict[str, Interval | None] = {}
    for name in names:
        compute = statistic(name, target, labels, scores, thresholds, settings)
        (value,) = compute(np.ones((1, len(labels))))
        # All resamples have the same value, although other test examples might not: take the exact interval.
        if is_fraction(name) and value in (0.0, 1.0):
            count = int(units.max()) + 1
            exact = binomtest(round(value * count), count).proportion_ci(LEVEL, "exact")
            by_metric[name] = float(exact.low), float(exact.high)
        else:
            by_metric[name] = _bootstrapped(compute, units, fast=is_fast(name), seed=seed)[0]
    return by_metric


def bootstrap_difference(
    first: Statistic,
    other: Statistic,
    examples: int,
    *,
    fast: bool,
    seed: int,
    groups: Sequence[str] | None = None,
) -> tuple[Interval | None, float | None]:
    """Compute the paired bootstrap interval and p-value of the difference of a metric between two models.

    Each resample is drawn once and used for both models.

    Args:
        first: Metric of the first model, as a function of the counts of a resample.
        other: Metric of the other model, likewise.
        examples: Number of examples.
        fast: Whether many resamples are computed at once, see ``is_fast``.
        seed: Seed of the bootstrap.
        groups: Group of each example; groups are resampled as a whole. None resamples the examples one by one.

    Returns:
        The 95 % interval of ``other - first``, and the two-sided p-value: twice the share of resamples on the rarer
        side of 0. Both are None if the difference is undefined on some resamples.
    """
    interval, drawn = _bootstrapped(
        lambda counts: other(counts) - first(counts), _units(groups, examples), fast=fast, seed=seed
    )
    if interval is None:
        return None, None
    rarer = min((drawn <= 0).sum(), (drawn >= 0).sum())
    return interval, min(1.0, float(2 * (rarer + 1) / (len(drawn) + 1)))


def _units(groups: Sequence[str] | None, examples: int) -> np.ndarray:
    """Return the index of the resampling unit of each example [examples]: that of its group, or its own."""
    if groups is None:
        return np.arange(examples)
    return np.unique(np.asarray(groups), return_inverse=True)[1]


def _bootstrapped(
    compute: Statistic, units: np.ndarray, *, fast: bool, seed: int
) -> tuple[Interval | None, np.ndarray]:
    """Return the interval and the values of the resamples [resamples]; None and an empty array if undefined."""
    count = int(units.max()) + 1
    if count < 2:
        return None, np.empty(0)
    alone = np.array_equal(units, np.arange(count))

    def of(indices: np.ndarray, axis: int = -1) -> np.ndarray:
        drawn = indices.reshape(-1, indices.shape[-1])
        offsets = np.arange(len(drawn))[:, None] * count
        times = np.bincount((drawn + offsets).ravel(), minlength=len(drawn) * count).reshape(-1, count)
        counts = times if alone else times[:, units]
        return compute(counts.astype(np.float64)).reshape(indices.shape[:-1])

    for method in ("BCa", "percentile") if fast and count <= MOST_CORRECTED else ("percentile",):
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore", DegenerateDataWarning)  # the percentile method is tried next
            result = bootstrap(
                (np.arange(count),),
                of,
                n_resamples=RESAMPLES if fast else SLOW_RESAMPLES,
                batch=max(1, NUMBERS // len(units)),
                vectorized=True,
                confidence_level=_expanded(count),
                method=method,
                rng=np.random.default_rng(seed),
            )
        ends = result.confidence_interval
        if np.isfinite([ends.low, ends.high]).all():
            return (float(ends.low), float(ends.high)), result.bootstrap_distribution
    return None, np.empty(0)


def _expanded(units: int) -> float:
    """Return the nominal level at which a bootstrap interval of few units has the coverage ``LEVEL``.

    The standard deviation over resamples of n units is too small by the factor sqrt((n - 1) / n), and a t quantile has
    to replace the normal one.

    Source: Hesterberg 2015, section 5.3.
    """
    quantile = t.ppf((1 + LEVEL) / 2, units - 1) * np.sqrt(units / (units - 1))
    return float(1 - 2 * norm.sf(quantile))
