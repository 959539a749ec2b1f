"""Selection of the recipe of a search, and the score to expect of it on the test split."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import t

from hf_finetune.evaluation.intervals import LEVEL, Interval, resampling_units, statistic
from hf_finetune.evaluation.metrics import metric_for, sign_of
from hf_finetune.search.parts import Part
from hf_finetune.search.trials import Trial
from hf_finetune.targets.metric import Statistic

__all__ = ["Selection", "select"]

RESAMPLES = 1000
SLOW_RESAMPLES = 100
"""Number of resamples for metrics that are computed one resample at a time."""


@dataclass(frozen=True)
class Selection:
    """Trial that a search selects.

    Attributes:
        winner: Index of the selected trial: the cheapest whose score is within one standard error of the best, and
            that has at least as many parts.
        values: Score of each trial. That of a trial with fewer parts is the score of the reference (the cheapest trial
            with the most parts), plus their difference on the parts of both.
        errors: Standard error of each score.
        expected: Score to expect of the winner on other examples, after training on all examples outside the test
            split, and without the optimism of the selection.
        interval: Interval that contains its score on the test split in 95 % of all cases; None if the number of test
            examples is 0.
    """

    winner: int
    values: tuple[float, ...]
    errors: tuple[float, ...]
    expected: float
    interval: Interval | None


def select(
    trials: Sequence[Trial],
    metric: str,
    test_examples: int,
    seed: int = 0,
    eligible: Sequence[bool] | None = None,
) -> Selection:
    """Select the cheapest trial whose score is within one standard error of the best one.

    The standard error is that of the difference to the best trial, from a bootstrap of the examples. The selection is
    repeated on each resample, and its winner is scored on the examples that are not in the resample: the mean of these
    scores has no optimism.

    The winner is then trained on a quarter more examples than on a part. If the reference (the cheapest trial with the
    most parts) was also trained on four fifths of a part's examples, the expected score is raised by the difference:
    it is assumed that each quarter of examples raises the score by the same amount.

    Args:
        trials: Trials with at least one part.
        metric: Name of the metric.
        test_examples: Number of examples of the test split.
        seed: Seed of the bootstrap.
        eligible: Whether each trial can be selected, at least one; None is all of them.

    Returns:
        The selected trial, and the scores.

    Source: the rule of one standard error, Breiman et al. 1984, section 3.4.3; the bootstrap bias correction of
    cross-validation, Tsamardinos et al. 2018.
    """
    sign = sign_of(metric)
    reference = min(
        (trial for trial in trials if len(trial.results) == max(len(other.results) for other in trials)),
        key=lambda trial: trial.cost,
    )
    examples = reference.examples()
    units = resampling_units(examples)
    count = int(units.max()) + 1
    fast = metric_for(metric, examples).is_fast
    draws = np.random.default_rng(seed).multinomial(
        count, np.full(count, 1 / count), size=RESAMPLES if fast else SLOW_RESAMPLES
    )
    score = _Scorer(trials, reference, metric)
    (values,) = sign * score(np.ones((1, len(units))))
    resampled = sign * score(draws[:, units].astype(np.float64))
    held_out = sign * score((draws == 0)[:, units].astype(np.float64))
    errors = np.nanstd(resampled, axis=0, ddof=1)
    costs = np.array([trial.cost for trial in trials])
    differences = np.nanstd(resampled[:, :, None] - resampled[:, None, :], axis=0, ddof=1)
    excluded = np.zeros(len(trials), dtype=bool) if eligible is None else ~np.asarray(eligible)
    parts = np.array([len(trial.results) for trial in trials])
    winner = _winner(np.where(excluded, np.nan, values), differences, costs, parts)
    resampled[:, excluded] = np.nan
    outcomes = [
        held_out[row, _winner(resampled[row], differences, costs, parts)]
        for row in range(len(draws))
        if np.isfinite(resampled[row]).any()
    ]
    gain, gain_error = _gain_of_more_examples(reference, metric, draws[:, units])
    expected = float(np.nanmean(outcomes)) + sign * gain
    is_fraction = metric_for(metric, examples).is_fraction
    if is_fraction:
        expected = sign * min(max(sign * expected, 0.0), 1.0)
    interval = None
    if test_examples:
        repeats = len({part.repeat for part in reference.results})
        ratio = len(units) / repeats / test_examples
        error = np.hypot(errors[winner] * np.sqrt(1 + ratio), gain_error)
        margin = float(t.ppf((1 + LEVEL) / 2, count - 1)) * float(error)
        ends = sorted((sign * (expected - margin), sign * (expected + margin)))
        if is_fraction:
            ends = [min(max(end, 0.0), 1.0) for end in ends]
        interval = float(ends[0]), float(ends[1])
    scores = np.clip(sign * values, 0.0, 1.0) if is_fraction else sign * values
    return Selection(
        winner,
        tuple(scores.tolist()),
        tuple(errors.tolist()),
        sign * expected,
        interval,
    )


class _Scorer:
    """Scores of trials on resamples of the examples of a reference."""

    def __init__(self, trials: Sequence[Trial], reference: Trial, metric: str):
        parts = list(reference.results)
        ends = np.cumsum([len(reference.results[part].examples) for part in parts])
        rows = {
            part: np.arange(end - len(reference.results[part].examples), end)
            for part, end in zip(parts, ends, strict=True)
        }
        self.reference = _statistic(reference, parts, metric)
        self.trials: list[tuple[np.ndarray, Statistic, Statistic | None]] = []
        for trial in trials:
            common = [part for part in parts if part in trial.results]
            chosen = np.concatenate([rows[part] for part in common])
            same = len(common) == len(parts)
            baseline = None if same else _statistic(reference, common, metric)
            self.trials.append((chosen, _statistic(trial, common, metric), baseline))

    def __call__(self, counts: np.ndarray) -> np.ndarray:
        """Return the scores [resamples, trials] for counts [resamples, examples]."""
        with np.errstate(all="ignore"):
            of_reference = self.reference(counts)
            columns = []
            for rows, compute, baseline in self.trials:
                values = compute(counts[:, rows])
                columns.append(
                    values if baseline is None else of_reference + values - baseline(counts[:, rows])
                )
        return np.stack(columns, axis=1)


def _statistic(trial: Trial, parts: Sequence[Part], metric: str) -> Statistic:
    examples = trial.examples(parts)
    return statistic(metric_for(metric, examples), examples)


def _gain_of_more_examples(reference: Trial, metric: str, counts: np.ndarray) -> tuple[float, float]:
    """Return what a quarter more training examples bring, with its standard error; 0 if it was not measured.

    Args:
        reference: Trial whose predictions are compared.
        metric: Name of the metric.
        counts: Resamples of its examples [resamples, examples].
    """
    if any(result.smaller is None for result in reference.results.values()):
        return 0.0, 0.0
    counts = np.concatenate([np.ones((1, counts.shape[1])), counts])
    with np.errstate(all="ignore"):
        after, before = (
            statistic(metric_for(metric, examples), examples)(counts)
            for examples in (reference.examples(), reference.examples(smaller=True))
        )
    gains = after - before
    if not np.isfinite(gains[0]):
        return 0.0, 0.0
    return float(gains[0]), float(np.nanstd(gains[1:], ddof=1))


def _winner(values: np.ndarray, differences: np.ndarray, costs: np.ndarray, parts: np.ndarray) -> int:
    """Return the cheapest trial whose score is within one standard error of the best one.

    It has at least as many parts as the best one: a trial is not selected because little is known about it.

    Args:
        values: Score of each trial [trials], higher is better; NaN for one that cannot be selected.
        differences: Standard error of the difference of each pair of trials [trials, trials].
        costs: Computation of each trial [trials].
        parts: Number of parts of each trial [trials].
    """
    best = int(np.nanargmax(values))
    close = (values >= values[best] - differences[best]) & (parts >= parts[best])
    return int(np.flatnonzero(close)[np.argmin(costs[close])])
