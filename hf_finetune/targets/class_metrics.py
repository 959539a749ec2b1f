"""Metrics of classes, computed with scikit-learn and SciPy and without network access.

No metric counts unknown labels of multi-label data.
"""

import re
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from hf_finetune.fields.lazy_module import LazyModule
from hf_finetune.targets.agreement import cohen_kappa, matthews_correlation, weighted_kappa
from hf_finetune.targets.class_counts import (
    average_score,
    class_score_statistic,
    counts_statistic,
    kappa_statistic,
)
from hf_finetune.targets.metric import Metric, MetricSettings, PerExample, Statistic
from hf_finetune.targets.rank_metrics import rank_metric_at_k, rank_metrics
from hf_finetune.targets.scored_examples import ScoredExamples
from hf_finetune.targets.set_metrics import jaccard_metric
from hf_finetune.targets.top_scores import MANY_CLASSES, Scores, TopScores, label_ranks
from hf_finetune.targets.unknown_labels import has_unknown, is_known

__all__ = [
    "CLASS_SCORES",
    "COST_METRICS",
    "class_metric",
    "cross_entropy_per_example",
    "multi_label_metrics",
    "single_label_metric",
    "single_label_metrics",
    "split_class_metric",
    "top_k",
]

sklearn_metrics, stats = LazyModule("sklearn.metrics"), LazyModule("scipy.stats")

COST_METRICS = ("expected_cost", "expected_cost_bayes")
"""Metrics of the mean misclassification cost: of deciding for the most probable class, and for the class of least
expected cost."""
CLASS_SCORES = ("precision", "recall", "f1")
"""Scores that per-class metrics such as ``recall:soup`` are named after."""

_DEFAULT_K = 5
"""k of the top-k accuracy that is computed by default."""
_TOP_K_NAME = re.compile(r"top_?([1-9]\d{0,5})_accuracy")
_MAX_ROC_CLASSES = 1000
"""Maximum number of classes for which the area under the ROC curve is computed by default."""
_MAX_ARRAY_CELLS = 4_000_000
"""Maximum size of a temporary array: 32 MB of float64."""
_EPSILON = np.finfo(np.float64).eps


def single_label_metrics() -> Iterator[Metric]:
    """Yield the metrics of single-label data."""
    yield _mean_metric("accuracy", _correct, is_fraction=True)
    balanced = partial(counts_statistic, partial(average_score, "recall", "balanced"))
    yield Metric("balanced_accuracy", _balanced_accuracy, resampled=balanced)
    # With one label for each example, the micro averages are the accuracy.
    yield from _average_metrics(averages_on_request=("micro",))
    for name, agreement in (("matthews_correlation", matthews_correlation), ("cohen_kappa", cohen_kappa)):
        yield Metric(name, partial(_agreement, agreement), resampled=partial(counts_statistic, agreement))
    for weights, power in (("linear", 1), ("quadratic", 2)):  # for ordinal classes
        yield Metric(
            f"cohen_kappa_{weights}",
            partial(_weighted_kappa, power),
            resampled=partial(kappa_statistic, power),
            on_request=True,
        )
    yield top_k_metric(f"top{_DEFAULT_K}_accuracy", _DEFAULT_K)
    yield from _rankings()
    yield from rank_metrics()
    yield Metric("log_loss", _log_loss, per_example=_cross_entropy, greater_is_better=False)


def multi_label_metrics() -> Iterator[Metric]:
    """Yield the metrics of multi-label data."""
    yield from _average_metrics(averages_on_request=())
    yield _mean_metric("exact_match", _correct, is_fraction=True)
    yield jaccard_metric()
    yield from _rankings()
    yield Metric(
        "log_loss",
        _log_loss_of_known,
        resampled=_log_loss_statistic,
        greater_is_better=False,
        needs_all_scores=True,
    )


def _mean_metric(name: str, per_example: PerExample, **options: Any) -> Metric:
    """Return the metric that is the mean of a value of each example."""
    return Metric(name, lambda examples: per_example(examples).mean(), per_example=per_example, **options)


def _average_metrics(averages_on_request: tuple[str, ...]) -> Iterator[Metric]:
    """Yield precision, recall and F1, averaged over the classes; some averages only on request."""
    for average in ("micro", "macro", "weighted"):
        for score in CLASS_SCORES:
            yield Metric(
                f"{score}_{average}",
                partial(_averaged, score, average),
                resampled=partial(counts_statistic, partial(average_score, score, average)),
                on_request=average in averages_on_request,
            )


def _rankings() -> Iterator[Metric]:
    """Yield the metrics of the order of the examples by each class's probability."""
    yield Metric("roc_auc", _roc_auc, max_default_classes=_MAX_ROC_CLASSES, needs_all_scores=True)
    yield Metric(
        "mean_average_precision",
        _mean_average_precision,
        max_default_classes=MANY_CLASSES,
        needs_all_scores=True,
    )


def top_k_metric(name: str, k: int) -> Metric:
    """Return the fraction of examples whose class is among the k most probable.

    Args:
        name: Name of the metric.
        k: Number of classes, at least 1.
    """
    return Metric(
        name,
        partial(_top_k_accuracy, k),
        per_example=partial(_in_top_k, k),
        is_fraction=True,
        min_classes=k + 1,
    )


def single_label_metric(name: str, settings: MetricSettings) -> Metric | None:
    """Return ``top_K_accuracy``, a metric of ranks, a per-class one, or, if there are costs, one of them; else None.

    Args:
        name: Name in a recipe.
        settings: Classes and costs.
    """
    k = top_k(name)
    if k is not None:
        return top_k_metric(name, k)
    if name in COST_METRICS and settings.costs:
        bayes = name == COST_METRICS[1]
        costs = partial(_costs, settings.cost_matrix(), bayes)
        return _mean_metric(name, costs, greater_is_better=False, needs_all_scores=bayes)
    return rank_metric_at_k(name) or class_metric(name, settings)


def class_metric(name: str, settings: MetricSettings) -> Metric | None:
    """Return a per-class metric such as ``recall:soup``; None for any other name.

    Args:
        name: Name in a recipe.
        settings: Classes of the data.
    """
    score, label = split_class_metric(name)
    if label not in settings.label_names:
        return None
    index = settings.label_names.index(label)
    return Metric(
        name, partial(_class_score, score, index), resampled=partial(class_score_statistic, score, index)
    )


def top_k(name: str) -> int | None:
    """Return k of ``top_K_accuracy`` (or ``topK_accuracy``); None for any other name."""
    match = _TOP_K_NAME.fullmatch(name)
    return int(match[1]) if match else None


def split_class_metric(name: str) -> tuple[str, str | None]:
    """Return score and class of a name such as ``recall:soup``; for any other name, the name itself and None."""
    score, colon, label = name.partition(":")
    return (score, label) if colon and score in CLASS_SCORES else (name, None)


def _averaged(score: str, average: str, examples: ScoredExamples) -> float:
    """Compute the average of a per-class score over the classes in labels or decisions; 0 for 0 / 0."""
    labels, decisions = examples.filled
    if labels.ndim == 1 and examples.scores.shape[1] > MANY_CLASSES:
        return average_score(score, average, *(counts[None] for counts in _counts(examples))).item()
    # scikit-learn interprets a single column of zeros and ones as two classes.
    single = {"labels": [1]} if labels.shape[1:] == (1,) else {}
    compute_score = getattr(sklearn_metrics, f"{score}_score")
    return float(compute_score(labels, decisions, average=average, zero_division=0, **single))


def _correct(examples: ScoredExamples) -> np.ndarray:
    return examples.correct


def _balanced_accuracy(examples: ScoredExamples) -> float:
    """Compute the mean recall of the classes that occur in the labels."""
    if examples.scores.shape[1] > MANY_CLASSES:
        true_counts, _, true_positives = _counts(examples)
        return float((true_positives[true_counts > 0] / true_counts[true_counts > 0]).mean())
    labels = examples.labels
    return sklearn_metrics.recall_score(
        labels, examples.decisions, labels=np.unique(labels), average="macro", zero_division=0
    )


def _counts(examples: ScoredExamples) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return by class [classes] the numbers of labels, of decisions and of correct decisions."""
    parts = (examples.labels, examples.decisions, examples.labels[examples.correct])
    classes = examples.scores.shape[1]
    true_counts, predicted_counts, true_positives = (
        np.bincount(part, minlength=classes).astype(np.float64) for part in parts
    )
    return true_counts, predicted_counts, true_positives


def _agreement(agreement: Callable[..., np.ndarray], examples: ScoredExamples) -> float:
    return agreement(*_counts(examples)).item()


def _weighted_kappa(power: int, examples: ScoredExamples) -> float:
    true_counts, predicted_counts, _ = _counts(examples)
    distances = (np.abs(examples.labels - examples.decisions) ** power).sum().astype(np.float64)
    return weighted_kappa(true_counts, predicted_counts, distances, squared=power == 2).item()


def _top_k_accuracy(k: int, examples: ScoredExamples) -> float:
    """Compute the fraction of examples whose class is among the k most probable; 1 if there are at most k classes."""
    if k == 1 and examples.has_all_scores and examples.scores.shape[1] == 2:  # on ties, as the accuracy
        return examples.correct.mean()
    return _in_top_k(k, examples).mean()


def _in_top_k(k: int, examples: ScoredExamples) -> np.ndarray:
    """Return whether the class is among the k most probable. As in scikit-learn the greater index wins ties."""
    scores = examples.scores
    return (scores.ranks if isinstance(scores, TopScores) else label_ranks(scores, examples.labels)) < k


def _class_score(score: str, index: int, examples: ScoredExamples) -> float:
    """Compute precision, recall or F1 of one class against the rest; 0 for 0 / 0."""
    in_label, in_decision = (
        array[:, index] if array.ndim == 2 else array == index for array in examples.filled
    )
    return getattr(sklearn_metrics, f"{score}_score")(in_label, in_decision, zero_division=0)


def _costs(matrix: np.ndarray, bayes: bool, examples: ScoredExamples) -> np.ndarray:
    """Return the costs [examples] of deciding for the most probable class, or (Bayes) for that of least expected cost.

    Source: Elkan 2001, The foundations of cost-sensitive learning.
    """
    return matrix[examples.labels, (examples.scores @ matrix).argmin(axis=1) if bayes else examples.decisions]


def _scores_by_class(examples: ScoredExamples) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield for each class whether the examples belong to it, and their scores; those with a known label."""
    labels, scores = examples.labels, examples.scores
    members = labels if labels.ndim == 2 else labels[:, None] == np.arange(scores.shape[1])
    for column, probabilities, known in zip(members.T, scores.T, is_known(members).T, strict=True):
        yield column[known], probabilities[known]


def _mean_average_precision(examples: ScoredExamples) -> float:
    """Compute the mean over the classes of the average precision of each class against the rest.

    Classes without examples have no average precision and are ignored. nan if no class has an example.
    """
    values = [
        sklearn_metrics.average_precision_score(members, scores)
        for members, scores in _scores_by_class(examples)
        if members.any()
    ]
    return np.mean(values) if values else np.nan


def _roc_auc(examples: ScoredExamples) -> float:
    """Compute the mean over the classes of the area under the ROC curve of each class against the rest.

    Classes that all examples or none belong to have no curve and are ignored. nan if no class has a curve.
    """
    if examples.labels.ndim == 1 and examples.scores.shape[1] > MANY_CLASSES:
        return _areas_by_rank(examples.labels, examples.scores)
    areas = [
        sklearn_metrics.roc_auc_score(members, scores)
        for members, scores in _scores_by_class(examples)
        if len(np.unique(members)) > 1
    ]
    return np.mean(areas) if areas else np.nan


def _areas_by_rank(labels: np.ndarray, scores: np.ndarray) -> float:
    """Compute the mean area of ``_roc_auc`` from the ranks of the members of each class, many classes at once.

    Source: Mann & Whitney 1947; the area is the fraction of pairs of a member and a non-member in the correct order.
    """
    areas = []
    for classes in np.array_split(
        np.unique(labels), max(1, len(labels) * scores.shape[1] // _MAX_ARRAY_CELLS)
    ):
        members = labels[:, None] == classes
        counts = members.sum(axis=0)
        non_members = len(labels) - counts
        rank_sums = np.where(members, stats.rankdata(scores[:, classes], axis=0), 0.0).sum(axis=0)
        has_curve = non_members > 0
        areas.append((rank_sums - counts * (counts + 1) / 2)[has_curve] / (counts * non_members)[has_curve])
    all_areas = np.concatenate(areas)
    return float(all_areas.mean()) if len(all_areas) else np.nan


def _log_loss(examples: ScoredExamples) -> float:
    """Compute the mean cross-entropy in nats."""
    classes = examples.scores.shape[1]
    if not examples.has_all_scores or classes > MANY_CLASSES:
        label_probabilities = _scores_of_labels(examples.labels, examples.scores)
        return float(
            -np.log(np.clip(label_probabilities, _EPSILON, 1 - _EPSILON)).mean()
        )  # as in scikit-learn
    return sklearn_metrics.log_loss(examples.labels, examples.scores, labels=np.arange(classes))


def _log_loss_of_known(examples: ScoredExamples) -> float:
    """Compute the mean cross-entropy in nats, per example and class."""
    known = is_known(examples.labels)
    return sklearn_metrics.log_loss(examples.labels[known], examples.scores[known], labels=[0, 1])


def _log_loss_statistic(examples: ScoredExamples) -> Statistic:
    values, labels = _cross_entropy(examples), examples.labels
    weights = is_known(labels).sum(axis=1) if has_unknown(labels) else np.ones(len(labels))
    return lambda counts: counts @ (values * weights) / (counts @ weights)


def _cross_entropy(examples: ScoredExamples) -> np.ndarray:
    return cross_entropy_per_example(examples.labels, examples.scores)


def cross_entropy_per_example(labels: np.ndarray, scores: Scores) -> np.ndarray:
    """Return the cross-entropy of each example [examples], in nats; for multi-label data the mean over known labels.

    Args:
        labels: Class indices [examples], or zeros and ones [examples, classes].
        scores: Probabilities [examples, classes].
    """
    if labels.ndim == 2:
        clipped, known = np.clip(scores, _EPSILON, 1 - _EPSILON), is_known(labels)
        losses = -np.where(labels == 1, np.log(clipped), np.log1p(-clipped))
        return np.where(known, losses, 0).sum(axis=1) / np.maximum(known.sum(axis=1), 1)
    return -np.log(np.clip(_scores_of_labels(labels, scores), _EPSILON, 1.0))


def _scores_of_labels(labels: np.ndarray, scores: Scores) -> np.ndarray:
    """Return the probability of the true class [examples]."""
    return (
        scores.label_probabilities
        if isinstance(scores, TopScores)
        else scores[np.arange(len(labels)), labels]
    )
