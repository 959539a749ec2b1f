"""How far a metric would move on other test examples: bootstrap intervals.

Where examples come in groups that belong together, groups are resampled, each with all of its examples (the cluster
bootstrap of Davison and Hinkley, Bootstrap Methods and their Application, 1997, section 3.8).

Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapters 13 (percentile) and 14 (BCa); Hesterberg, What
Teachers Should Know About the Bootstrap, 2015, section 5.3 (percentile intervals expanded as t intervals are, which
matters for few units).
"""

import warnings
from collections.abc import Sequence

import numpy as np
from scipy.stats import DegenerateDataWarning, binomtest, bootstrap, norm, t

from hf_finetune.data.labels import Target
from hf_finetune.evaluation.registry import NO_SETTINGS, MetricSettings
from hf_finetune.evaluation.resampling import Statistic, is_fast, is_fraction, statistic

__all__ = ["FEW_GROUPS", "LEVEL", "Interval", "bootstrap_difference", "intervals"]

LEVEL = 0.95
RESAMPLES = 2000
SLOW_RESAMPLES = 200
"""For metrics that are computed resample by resample."""
MOST_CORRECTED = 2000
"""Units (examples, or groups) up to which the interval is corrected for bias and skew (BCa); that takes one more
resample for each, and for more of them it corrects next to nothing."""
FEW_GROUPS = 10
"""Groups below which an interval is not to be relied on."""
NUMBERS = 4_000_000
"""Most counts that are held at once."""

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
        names: Of metrics.
        target: What the labels are.
        scores: Probabilities [examples, classes], or amounts [examples].
        labels: Class indices [examples], zeros and ones [examples, classes], or amounts [examples].
        seed: Of the resamples.
        thresholds: From which probability on each class of multi-label data holds; None is 0.5 for all.
        groups: The group of each example, whose examples belong together; None if each is on its own.
        settings: The classes and costs.

    Returns:
        Lower and upper end by name; None where the metric is undefined on some resamples, or there is one example, or
        one group.
    """
    units = _units(groups, len(labels))
    found: dict[str, Interval | None] = {}
    for name in names:
        compute = statistic(name, target, labels, scores, thresholds, settings)
        (value,) = compute(np.ones((1, len(labels))))
        if is_fraction(name) and value in (0.0, 1.0):  # all resamples are alike, and others would not be
            count = int(units.max()) + 1
            exact = binomtest(round(value * count), count).proportion_ci(LEVEL, "exact")
            found[name] = float(exact.low), float(exact.high)
        else:
            found[name] = _bootstrapped(compute, units, fast=is_fast(name), seed=seed)[0]
    return found


def bootstrap_difference(
    first: Statistic,
    other: Statistic,
    examples: int,
    *,
    fast: bool,
    seed: int,
    groups: Sequence[str] | None = None,
) -> tuple[Interval | None, float | None]:
    """Compare a metric of two models on the same examples, which are resampled for both of them together.

    Args:
        first: The metric of the one.
        other: The metric of the other.
        examples: How many there are.
        fast: Whether many resamples are computed at once.
        seed: Of the resamples.
        groups: As for ``intervals``.

    Returns:
        The 95 % interval of ``other - first``, and twice the share of resamples on the rarer side of 0; None where it
        is undefined on some resamples.
    """
    interval, drawn = _bootstrapped(
        lambda counts: other(counts) - first(counts), _units(groups, examples), fast=fast, seed=seed
    )
    if interval is None:
        return None, None
    rarer = min((drawn <= 0).sum(), (drawn >= 0).sum())
    return interval, min(1.0, float(2 * (rarer + 1) / (len(drawn) + 1)))


def _units(groups: Sequence[str] | None, examples: int) -> np.ndarray:
    """Return the number of the unit that each example is drawn with [examples]: of its group, or its own."""
    if groups is None:
        return np.arange(examples)
    return np.unique(np.asarray(groups), return_inverse=True)[1]


def _bootstrapped(
    compute: Statistic, units: np.ndarray, *, fast: bool, seed: int
) -> tuple[Interval | None, np.ndarray]:
    """Return the interval, and the values of the resamples."""
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
            warnings.simplefilter("ignore", DegenerateDataWarning)  # the other method comes next
            found = bootstrap(
                (np.arange(count),),
                of,
                n_resamples=RESAMPLES if fast else SLOW_RESAMPLES,
                batch=max(1, NUMBERS // len(units)),
                vectorized=True,
                confidence_level=_expanded(count),
                method=method,
                rng=np.random.default_rng(seed),
            )
        ends = found.confidence_interval
        if np.isfinite([ends.low, ends.high]).all():
            return (float(ends.low), float(ends.high)), found.bootstrap_distribution
    return None, np.empty(0)


def _expanded(units: int) -> float:
    """Return the level at which a bootstrap interval of so few units holds the truth as often as ``LEVEL`` says.

    Resamples of n units vary less than other samples do, by sqrt((n - 1) / n), and a t quantile belongs in the place
    of the normal one.

    Source: Hesterberg 2015, section 5.3.
    """
    quantile = t.ppf((1 + LEVEL) / 2, units - 1) * np.sqrt(units / (units - 1))
    return float(1 - 2 * norm.sf(quantile))
