"""Forecasts without a neural network: seasonal naive, Theta, exponential smoothing, and a linear model of all series.

Each forecasts the validation and the test examples. Its errors on the validation examples give the quantiles, for each
step of the horizon, in units of the scale of the series; without a validation split all quantiles are the forecast.
"""

import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np

from hf_finetune.targets.forecast import LEVELS
from hf_finetune.targets.forecast_metrics import scaled_errors

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = ["fit_forecasts"]

logger = logging.getLogger(__name__)

MAX_FITS = 2_000
"""Largest number of validation and test examples for which Theta and exponential smoothing are fitted, one by one."""
_STRENGTHS = (0.1, 1.0, 10.0, 100.0, 1e3, 1e4, 1e5)
"""Ridge penalties from which the validation split chooses, in units of one training example."""
_MAX_ROWS = 200_000


@dataclass(frozen=True)
class _Histories:
    """Examples to forecast.

    Attributes:
        pasts: Past values of each.
        labels: Future values and scale [examples, steps + 1].
        seasons: Length of a season of each.
        covariates: Numbers known in advance of each [past values + steps, covariates]; empty without any.
    """

    pasts: Sequence[np.ndarray]
    labels: np.ndarray
    seasons: Sequence[int]
    covariates: Sequence[np.ndarray] = ()

    @property
    def horizon(self) -> int:
        return int(self.labels.shape[1] - 1)

    def select(self, rows: Sequence[int]) -> "_Histories":
        return _Histories(
            [self.pasts[row] for row in rows],
            self.labels[rows],
            [self.seasons[row] for row in rows],
            [self.covariates[row] for row in rows] if self.covariates else (),
        )


Forecaster = Callable[[_Histories], np.ndarray]
"""Function from examples to their forecasts [examples, steps]."""


def fit_forecasts(
    train: "Dataset", validation: "Dataset | None", test: "Dataset", season: int | None
) -> dict[str, tuple[np.ndarray, dict[str, Any]]]:
    """Fit the baselines, and forecast the test examples.

    Args:
        train: Training split with the columns ``past_values`` and ``label``.
        validation: Validation split, which chooses the strength of the linear model, and gives the quantiles.
        test: Test split.
        season: Length of a season of examples that do not state one (steps); None is 1.

    Returns:
        Quantiles of the test examples [examples, steps x levels], and the chosen settings, by name.
    """
    fitted, tested = _read(train, season), _read(test, season)
    held_out = None if validation is None else _read(validation, season)
    results: dict[str, tuple[np.ndarray, dict[str, Any]]] = {}
    for name, candidates in _forecasters(
        fitted, len(tested.pasts) + (len(held_out.pasts) if held_out else 0)
    ):
        best: tuple[float, Forecaster, dict[str, Any], np.ndarray | None] | None = None
        for settings, forecast in candidates:
            forecasts = None if held_out is None else forecast(held_out)
            error = 0.0 if forecasts is None or held_out is None else _error(held_out.labels, forecasts)
            if best is None or error < best[0]:
                best = error, forecast, settings, forecasts
            if held_out is None:
                break
        assert best is not None
        offsets = _offsets(held_out, best[3], tested.horizon)
        forecasts = best[1](tested)
        quantiles = forecasts[..., None] + tested.labels[:, -1, None, None] * offsets
        results[name] = quantiles.reshape(len(quantiles), -1), best[2]
    return results


def _read(split: "Dataset", season: int | None) -> _Histories:
    pasts = [past for batch in split.iter(batch_size=1000) for past in batch["past_values"]]
    return _Histories(
        [np.asarray(past["values"]) for past in pasts],
        np.asarray(split["label"][:], dtype=np.float64),
        [past["season"] or season or 1 for past in pasts],
        [np.asarray(past["covariates"]) for past in pasts] if pasts[0]["covariates"] else (),
    )


def _error(labels: np.ndarray, forecasts: np.ndarray) -> float:
    errors = scaled_errors(labels, forecasts)
    return float(np.nanmean(errors)) if np.isfinite(errors).any() else 0.0


def _offsets(held_out: _Histories | None, forecasts: np.ndarray | None, horizon: int) -> np.ndarray:
    """Return the quantiles of the scaled errors on the validation split [steps, levels]."""
    offsets = np.zeros((horizon, len(LEVELS)))
    if held_out is None or forecasts is None:
        return offsets
    scales = held_out.labels[:, -1]
    known = scales > 0
    if known.any():
        errors = (held_out.labels[known, :-1] - forecasts[known]) / scales[known, None]
        offsets = np.quantile(errors, LEVELS, axis=0).T
        offsets -= offsets[:, len(LEVELS) // 2, None]  # the forecast itself is the median
    return offsets


def _forecasters(
    fitted: _Histories, count: int
) -> Iterator[tuple[str, Iterator[tuple[dict[str, Any], Forecaster]]]]:
    yield "seasonal_naive", iter([({}, _of_each(_seasonal_naive))])
    if find_spec("statsmodels") is None:
        logger.info("No Theta and no exponential smoothing: install hf-finetune[forecast].")
    elif count > MAX_FITS:
        logger.info(
            f"No Theta and no exponential smoothing: fitting {count:,} series one by one would take too long."
        )
    else:
        yield "theta", iter([({}, _of_each(_theta))])
        yield "exponential_smoothing", iter([({}, _of_each(_exponential_smoothing))])
    yield "linear_forecast", _linear(fitted)


def _of_each(forecast: Callable[[np.ndarray, int, int], np.ndarray]) -> Forecaster:
    """Return a function that forecasts series one by one."""

    def forecasts(histories: _Histories) -> np.ndarray:
        rows = [
            forecast(past, season, histories.horizon)
            for past, season in zip(histories.pasts, histories.seasons, strict=True)
        ]
        return np.stack(rows)

    return forecasts


def _seasonal_naive(past: np.ndarray, season: int, horizon: int) -> np.ndarray:
    """Return the values of the last season again and again."""
    last = past[-season:]
    return np.resize(last, horizon) if len(last) == season else np.full(horizon, past[-1])


def _theta(past: np.ndarray, season: int, horizon: int) -> np.ndarray:
    """Return the forecast of the Theta method, after seasonal adjustment.

    Source: Assimakopoulos and Nikolopoulos 2000, The theta model.
    """
    from statsmodels.tsa.forecasting.theta import ThetaModel

    seasonal = 1 < season <= len(past) // 2

    def fit() -> np.ndarray:
        model = ThetaModel(past, period=season if seasonal else 1, deseasonalize=seasonal)
        return np.asarray(model.fit(disp=False).forecast(horizon))

    return _or_naive(fit, past, season, horizon)


def _exponential_smoothing(past: np.ndarray, season: int, horizon: int) -> np.ndarray:
    """Return the forecast of exponential smoothing with a damped trend, and the season with the lower AICc.

    Source: Gardner 2006, Exponential smoothing: the state of the art, part II.
    """
    from statsmodels.tsa.holtwinters import ExponentialSmoothing

    seasonal = 1 < season <= len(past) // 2
    kinds: list[str | None] = [None]
    if seasonal:
        kinds = ["add", "mul"] if (past > 0).all() else ["add"]

    def fit() -> np.ndarray:
        models = [
            ExponentialSmoothing(
                past,
                trend="add",
                damped_trend=True,
                seasonal=kind,
                seasonal_periods=season if seasonal else None,
            ).fit()
            for kind in kinds
        ]
        best = min(models, key=lambda model: model.aicc if np.isfinite(model.aicc) else np.inf)
        return np.asarray(best.forecast(horizon))

    return _or_naive(fit, past, season, horizon)


def _or_naive(fit: Callable[[], np.ndarray], past: np.ndarray, season: int, horizon: int) -> np.ndarray:
    """Return the forecast of a model, or the seasonal naive one for a series that it cannot be fitted to."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            forecast = fit()
        except (ValueError, np.linalg.LinAlgError, ZeroDivisionError, IndexError):
            return _seasonal_naive(past, season, horizon)
    # a diverging fit of a short series
    largest = 10 * np.abs(past).max()
    usable = np.isfinite(forecast).all() and np.abs(forecast).max() <= largest
    return forecast if usable else _seasonal_naive(past, season, horizon)


def _linear(fitted: _Histories) -> Iterator[tuple[dict[str, Any], Forecaster]]:
    """Yield ridge regressions from the last values of a series to the error of the seasonal naive forecast.

    One model for all series: of each, the mean of the values that it reads is subtracted, and their mean absolute
    deviation is the unit. Covariates of these and of the future steps are inputs, too. The context is the longest that
    half of the training examples have, or two seasons.

    Source: Zeng et al. 2023, Are transformers effective for time series forecasting?
    """
    longest = int(np.median([len(past) for past in fitted.pasts]))
    shorter = min(longest, 2 * max(fitted.seasons))
    for context in dict.fromkeys((longest, shorter)):
        chosen = fitted.select(
            [row for row, past in enumerate(fitted.pasts) if len(past) >= context][:_MAX_ROWS]
        )
        design = _Design(context, _moments(chosen))
        inputs, units, naive = design(chosen)
        # errors count by the scale of the series, as in the metric
        scales = np.where(chosen.labels[:, -1] > 0, chosen.labels[:, -1], units)
        weights = (units / scales)[:, None]
        outputs = (chosen.labels[:, :-1] - naive) / units[:, None]
        gram = (inputs * weights).T @ (inputs * weights)
        moment = (inputs * weights).T @ (outputs * weights)
        for strength in _STRENGTHS:
            matrix = np.linalg.solve(gram + strength * np.eye(len(gram)), moment)
            yield {"context": context, "l2": strength}, _linear_forecaster(matrix, design)


def _moments(histories: _Histories) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and standard deviation of each covariate."""
    if not histories.covariates:
        return np.zeros(0), np.ones(0)
    rows = np.concatenate(histories.covariates)
    spread = rows.std(axis=0)
    return rows.mean(axis=0), np.where(spread > 0, spread, 1.0)


def _linear_forecaster(matrix: np.ndarray, design: "_Design") -> Forecaster:
    def forecasts(histories: _Histories) -> np.ndarray:
        inputs, units, naive = design(histories)
        predicted: np.ndarray = naive + units[:, None] * (inputs @ matrix)
        return predicted

    return forecasts


@dataclass(frozen=True)
class _Design:
    """Inputs of the linear model.

    Attributes:
        context: Number of past values.
        moments: Mean and standard deviation of each covariate.
    """

    context: int
    moments: tuple[np.ndarray, np.ndarray]

    def __call__(self, histories: _Histories) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the inputs [examples, inputs], the units of the examples, and their seasonal naive forecasts."""
        count, context = len(histories.pasts), self.context
        inputs, units = np.zeros((count, context + 1)), np.ones(count)
        inputs[:, -1] = 1
        for row, past in enumerate(histories.pasts):
            read = past[-context:]
            deviations = read - read.mean()
            units[row] = np.abs(deviations).mean() or 1.0
            inputs[row, context - len(read) : context] = deviations / units[row]
        parts = [inputs]
        if histories.covariates:
            parts.append(np.stack([self._known(rows, histories.horizon) for rows in histories.covariates]))
        return np.concatenate(parts, axis=1), units, _of_each(_seasonal_naive)(histories)

    def _known(self, rows: np.ndarray, horizon: int) -> np.ndarray:
        """Return the standardized covariates of the steps that are read, and of the future ones, the latest last."""
        mean, spread = self.moments
        read = ((rows - mean) / spread)[-(self.context + horizon) :]
        known = np.zeros((self.context + horizon, len(mean)))
        known[len(known) - len(read) :] = read
        return known.ravel()
