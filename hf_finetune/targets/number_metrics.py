"""Metrics of labels that are numbers [examples]; scores are predictions [examples]."""

from collections.abc import Iterator

import numpy as np

from hf_finetune.fields.lazy_module import LazyModule
from hf_finetune.targets.metric import Metric

__all__ = ["metrics_of_numbers"]

sklearn_metrics, stats = LazyModule("sklearn.metrics"), LazyModule("scipy.stats")


def metrics_of_numbers() -> Iterator[Metric]:
    """Yield the metrics of numbers."""
    yield Metric("mae", _mae, greater_is_better=False)
    yield Metric("rmse", _rmse, greater_is_better=False)
    yield Metric("r2", _r2)
    yield Metric("spearman", _spearman)


def _mae(labels: np.ndarray, decisions: np.ndarray, scores: np.ndarray) -> float:
    return sklearn_metrics.mean_absolute_error(labels, scores)


def _rmse(labels: np.ndarray, decisions: np.ndarray, scores: np.ndarray) -> float:
    return sklearn_metrics.root_mean_squared_error(labels, scores)


def _r2(labels: np.ndarray, decisions: np.ndarray, scores: np.ndarray) -> float:
    """Compute the coefficient of determination; nan for a single example."""
    return sklearn_metrics.r2_score(labels, scores) if len(labels) > 1 else np.nan


def _spearman(labels: np.ndarray, decisions: np.ndarray, scores: np.ndarray) -> float:
    """Compute Spearman's rank correlation; nan if the labels or the predictions are constant."""
    if np.ptp(labels) == 0 or np.ptp(scores) == 0:
        return np.nan
    return stats.spearmanr(labels, scores).statistic
