"""The metrics that are computed here, with scikit-learn and SciPy: no network.

Labels are class indices [examples] (single_label), zeros and ones [examples, classes] (multi_label) or
amounts [examples] (regression). Scores are probabilities [examples, classes], or the predicted amounts.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType

import numpy as np
from scipy.stats import spearmanr
from sklearn import metrics as sklearn_metrics

from hf_finetune.data.labels import Target

__all__ = ["METRICS", "Metric"]

_MOST_TOP = 5

Compute = Callable[[np.ndarray, np.ndarray, np.ndarray], float]


@dataclass(frozen=True)
class Metric:
    """A number that says how good predictions are.

    Attributes:
        name: As it stands in recipes and in metrics.json.
        targets: The targets it is defined for.
        compute: Takes labels, decisions (class indices, or zeros and ones) and scores.
        greater_is_better: Whether a better model has the greater value.
        fewest_classes: With fewer it says nothing.
    """

    name: str
    targets: tuple[Target, ...]
    compute: Compute
    greater_is_better: bool = True
    fewest_classes: int = 1


def _averaged(score: Callable[..., float], average: str) -> Compute:
    """Average a score of each class that occurs in labels or decisions. 0 where it would divide by 0."""

    def compute(labels: np.ndarray, decisions: np.ndarray, scores: np.ndarray) -> float:
        # scikit-learn takes a single column of zeros and ones for two classes, not for one.
        single = {"labels": [1]} if labels.shape[1:] == (1,) else {}
        return score(labels, decisions, average=average, zero_division=0, **single)

    return compute


def _accuracy(labels: np.ndarray, decisions: np.ndarray, scores: np.ndarray) -> float:
    """Fraction of the examples that are all right. For multi-label data: every class of the example."""
    return sklearn_metrics.accuracy_score(labels, decisions)


def _balanced_accuracy(labels: np.ndarray, decisions: np.ndarray, scores: np.ndarray) -> float:
    """Mean recall of the classes that occur in the labels."""
    return sklearn_metrics.recall_score(
        labels, decisions, labels=np.unique(labels), average="macro", zero_division=0
    )


def _top5_accuracy(labels: np.ndarray, decisions: np.ndarray, scores: np.ndarray) -> float:
    """Fraction of the examples whose class is among the five likeliest; 1 if there are no more."""
    classes = scores.shape[1]
    if classes <= _MOST_TOP:
        return 1.0
    return sklearn_metrics.top_k_accuracy_score(labels, scores, k=_MOST_TOP, labels=np.arange(classes))


def _roc_auc(labels: np.ndarray, decisions: np.ndarray, scores: np.ndarray) -> float:
    """Mean over the classes of the area under the curve of this class against the rest.

    A class that every example or none belongs to has no curve and is left out. nan if no class has one.
    """
    members = labels if labels.ndim == 2 else labels[:, None] == np.arange(scores.shape[1])
    drawn = [index for index, column in enumerate(members.T) if column.min() != column.max()]
    areas = [sklearn_metrics.roc_auc_score(members[:, index], scores[:, index]) for index in drawn]
    return np.mean(areas) if areas else np.nan


def _log_loss(labels: np.ndarray, decisions: np.ndarray, scores: np.ndarray) -> float:
    """Mean cross-entropy in nats: per example, or for multi-label data per example and class."""
    if labels.ndim == 2:
        return sklearn_metrics.log_loss(labels.ravel(), scores.ravel(), labels=[0, 1])
    return sklearn_metrics.log_loss(labels, scores, labels=np.arange(scores.shape[1]))


def _mae(labels: np.ndarray, decisions: np.ndarray, scores: np.ndarray) -> float:
    return sklearn_metrics.mean_absolute_error(labels, scores)


def _rmse(labels: np.ndarray, decisions: np.ndarray, scores: np.ndarray) -> float:
    return sklearn_metrics.root_mean_squared_error(labels, scores)


def _r2(labels: np.ndarray, decisions: np.ndarray, scores: np.ndarray) -> float:
    """Share of the labels' variance that is explained. nan for a single example."""
    return sklearn_metrics.r2_score(labels, scores) if len(labels) > 1 else np.nan


def _spearman(labels: np.ndarray, decisions: np.ndarray, scores: np.ndarray) -> float:
    """Rank correlation. nan if the labels or the predictions are all the same."""
    if np.ptp(labels) == 0 or np.ptp(scores) == 0:
        return np.nan
    return spearmanr(labels, scores).statistic


def _registry() -> Iterator[Metric]:
    one: Target = "single_label"
    several: Target = "multi_label"
    amount: Target = "regression"
    precision, recall, f1 = (
        partial(_averaged, score)
        for score in (sklearn_metrics.precision_score, sklearn_metrics.recall_score, sklearn_metrics.f1_score)
    )
    yield Metric("accuracy", (one,), _accuracy)
    yield Metric("balanced_accuracy", (one,), _balanced_accuracy)
    averages: dict[str, tuple[Target, ...]] = {
        "micro": (several,),
        "macro": (one, several),
        "weighted": (one, several),
    }
    for average, targets in averages.items():
        yield Metric(f"precision_{average}", targets, precision(average))
        yield Metric(f"recall_{average}", targets, recall(average))
        yield Metric(f"f1_{average}", targets, f1(average))
    yield Metric("exact_match", (several,), _accuracy)
    yield Metric("top5_accuracy", (one,), _top5_accuracy, fewest_classes=_MOST_TOP + 1)
    yield Metric("roc_auc", (one, several), _roc_auc)
    yield Metric("log_loss", (one, several), _log_loss, greater_is_better=False)
    yield Metric("mae", (amount,), _mae, greater_is_better=False)
    yield Metric("rmse", (amount,), _rmse, greater_is_better=False)
    yield Metric("r2", (amount,), _r2)
    yield Metric("spearman", (amount,), _spearman)


METRICS: Mapping[str, Metric] = MappingProxyType({metric.name: metric for metric in _registry()})
