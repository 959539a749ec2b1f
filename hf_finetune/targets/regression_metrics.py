"""Regression metrics of labels [examples] and predictions [examples]."""

from collections.abc import Iterator

import numpy as np

from hf_finetune.fields.lazy_module import LazyModule
from hf_finetune.targets.metric import Metric, Statistic
from hf_finetune.targets.scored_examples import ScoredExamples

__all__ = ["regression_metrics"]

sklearn_metrics, stats = LazyModule("sklearn.metrics"), LazyModule("scipy.stats")


def regression_metrics() -> Iterator[Metric]:
    """Yield the regression metrics."""
    yield Metric("mae", _mae, per_example=_absolute_errors, greater_is_better=False)
    yield Metric("rmse", _rmse, resampled=_rmse_statistic, greater_is_better=False)
    yield Metric("r2", _r2)
    yield Metric("spearman", _spearman)


def _mae(examples: ScoredExamples) -> float:
    return sklearn_metrics.mean_absolute_error(examples.labels, examples.scores)


def _absolute_errors(examples: ScoredExamples) -> np.ndarray:
    return np.abs(examples.labels - examples.scores)


def _rmse(examples: ScoredExamples) -> float:
    return sklearn_metrics.root_mean_squared_error(examples.labels, examples.scores)


def _rmse_statistic(examples: ScoredExamples) -> Statistic:
    squares = (examples.labels - examples.scores) ** 2
    return lambda counts: np.sqrt(counts @ squares / counts.sum(axis=1))


def _r2(examples: ScoredExamples) -> float:
    """Compute the coefficient of determination; nan for a single example."""
    return sklearn_metrics.r2_score(examples.labels, examples.scores) if len(examples) > 1 else np.nan


def _spearman(examples: ScoredExamples) -> float:
    """Compute Spearman's rank correlation; nan if the labels or the predictions are constant."""
    if np.ptp(examples.labels) == 0 or np.ptp(examples.scores) == 0:
        return np.nan
    return stats.spearmanr(examples.labels, examples.scores).statistic
