"""Metrics of forecasts: labels [examples, steps + 1], whose last column is the scale, and quantiles of each step."""

from collections.abc import Iterator
from functools import partial

import numpy as np

from hf_finetune.targets.forecast import LEVELS
from hf_finetune.targets.metric import Metric, PerExample, Statistic
from hf_finetune.targets.scored_examples import ScoredExamples

__all__ = ["forecast_metrics", "scaled_errors"]

_LOW, _HIGH, _COVERED = LEVELS.index(0.1), LEVELS.index(0.9), 0.8


def forecast_metrics() -> Iterator[Metric]:
    """Yield the metrics of forecasts.

    - ``mase``: mean absolute error of each example, divided by the scale of its series, and averaged; below 1, a
      forecast is better than the seasonal naive one was, a step ahead, on the past of the series.
    - ``smape``: mean of 2 |error| / (|value| + |forecast|), in percent.
    - ``mae`` and ``rmse``: in the unit of the series, so that series with large values count most.
    - ``weighted_quantile_loss``: twice the pinball loss, averaged over the levels, summed over all steps, and divided
      by the sum of the absolute values.
    - ``coverage_error_80``: difference from 0.8 of the fraction of the values between the quantiles 0.1 and 0.9.

    Source: Hyndman and Koehler 2006, Another look at measures of forecast accuracy; Makridakis et al. 2020, The M4
    competition; Salinas et al. 2020, DeepAR.
    """
    yield Metric("mase", _mase, resampled=_mase_statistic, takes_weights=True, greater_is_better=False)
    yield Metric("smape", partial(_mean, _smape), per_example=_smape, greater_is_better=False)
    yield Metric("mae", partial(_mean, _absolute), per_example=_absolute, greater_is_better=False)
    yield Metric("rmse", _rmse, resampled=_rmse_statistic, greater_is_better=False)
    yield Metric(
        "weighted_quantile_loss", _quantile_loss, resampled=_quantile_loss_statistic, greater_is_better=False
    )
    yield Metric(
        "coverage_error_80", _coverage_error, resampled=_coverage_error_statistic, greater_is_better=False
    )


def scaled_errors(labels: np.ndarray, decisions: np.ndarray) -> np.ndarray:
    """Return the mean absolute error of each example, divided by its scale [examples]; nan if that is 0.

    Args:
        labels: Values and scale [examples, steps + 1].
        decisions: Forecasts [examples, steps].
    """
    scale = labels[:, -1]
    errors = np.abs(labels[:, :-1] - decisions).mean(axis=1)
    scaled: np.ndarray = np.divide(errors, scale, out=np.full(len(errors), np.nan), where=scale > 0)
    return scaled


def _mean(values: PerExample, examples: ScoredExamples) -> float:
    return float(values(examples).mean())


def _mase(examples: ScoredExamples) -> float:
    """Compute the mean scaled error; examples without a scale are left out, and without any others it is nan."""
    counts = np.ones(len(examples)) if examples.weights is None else examples.weights
    return float(_mase_statistic(examples)(counts[None])[0])


def _mase_statistic(examples: ScoredExamples) -> Statistic:
    errors = scaled_errors(examples.labels, examples.decisions)
    known = np.isfinite(errors)
    filled = np.where(known, errors, 0.0)

    def statistic(counts: np.ndarray) -> np.ndarray:
        present = counts @ known
        values: np.ndarray = np.divide(
            counts @ filled, present, out=np.full(len(counts), np.nan), where=present > 0
        )
        return values

    return statistic


def _smape(examples: ScoredExamples) -> np.ndarray:
    values, forecasts = examples.labels[:, :-1], examples.decisions
    size = np.abs(values) + np.abs(forecasts)
    shares = np.divide(2 * np.abs(values - forecasts), size, out=np.zeros_like(values), where=size > 0)
    percent: np.ndarray = 100 * shares.mean(axis=1)
    return percent


def _absolute(examples: ScoredExamples) -> np.ndarray:
    errors: np.ndarray = np.abs(examples.labels[:, :-1] - examples.decisions).mean(axis=1)
    return errors


def _squares(examples: ScoredExamples) -> np.ndarray:
    squares: np.ndarray = ((examples.labels[:, :-1] - examples.decisions) ** 2).mean(axis=1)
    return squares


def _rmse(examples: ScoredExamples) -> float:
    return float(np.sqrt(_squares(examples).mean()))


def _rmse_statistic(examples: ScoredExamples) -> Statistic:
    squares = _squares(examples)
    return lambda counts: np.sqrt(counts @ squares / counts.sum(axis=1))


def _quantiles(examples: ScoredExamples) -> np.ndarray:
    """Return the quantiles [examples, steps, levels]."""
    quantiles: np.ndarray = np.asarray(examples.scores).reshape(len(examples), -1, len(LEVELS))
    return quantiles


def _pinball(examples: ScoredExamples) -> tuple[np.ndarray, np.ndarray]:
    """Return the sums over the steps of twice the mean pinball loss, and of the absolute values [examples]."""
    values = examples.labels[:, :-1]
    errors = values[..., None] - _quantiles(examples)
    losses = 2 * np.maximum(np.asarray(LEVELS) * errors, (np.asarray(LEVELS) - 1) * errors)
    return losses.mean(axis=2).sum(axis=1), np.abs(values).sum(axis=1)


def _quantile_loss(examples: ScoredExamples) -> float:
    """Compute the weighted quantile loss; nan if all values are 0."""
    return float(_quantile_loss_statistic(examples)(np.ones((1, len(examples))))[0])


def _quantile_loss_statistic(examples: ScoredExamples) -> Statistic:
    losses, sizes = _pinball(examples)

    def statistic(counts: np.ndarray) -> np.ndarray:
        total = counts @ sizes
        values: np.ndarray = np.divide(
            counts @ losses, total, out=np.full(len(counts), np.nan), where=total > 0
        )
        return values

    return statistic


def _coverage_error(examples: ScoredExamples) -> float:
    return float(_coverage_error_statistic(examples)(np.ones((1, len(examples))))[0])


def _coverage_error_statistic(examples: ScoredExamples) -> Statistic:
    values, quantiles = examples.labels[:, :-1], _quantiles(examples)
    inside = (values >= quantiles[..., _LOW]) & (values <= quantiles[..., _HIGH])
    shares = inside.mean(axis=1)
    return lambda counts: np.abs(counts @ shares / counts.sum(axis=1) - _COVERED)
