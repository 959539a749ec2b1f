"""Metrics of classes, computed with scikit-learn and SciPy and without network access.

Labels are class indices [examples], or zeros and ones [examples, classes] (multi-label; nan marks an unknown label,
which no metric counts). Scores are probabilities [examples, classes]. Decisions have the form of the labels.
"""

import re
from collections.abc import Iterator
from functools import partial

import numpy as np

from hf_finetune.fields.lazy_module import LazyModule
from hf_finetune.targets.agreement import cohen_kappa, matthews_correlation, weighted_kappa
from hf_finetune.targets.metric import Compute, Metric, MetricSettings
from hf_finetune.targets.top_scores import MANY_CLASSES, TopScores, label_ranks
from hf_finetune.targets.unknown_labels import fill_unknown, is_known

__all__ = [
    "CLASS_SCORES",
    "COST_METRICS",
    "class_metric",
    "metric_of_one_class",
    "metrics_of_many_classes",
    "metrics_of_one_class",
    "split_class_metric",
    "top_k",
]

sklearn_metrics, stats = LazyModule("sklearn.metrics"), LazyModule("scipy.stats")

COST_METRICS = ("expected_cost", "expected_cost_bayes")
"""Metrics of the mean misclassification cost: of deciding for the most probable class, and for the class of least
expected cost."""
CLASS_SCORES = ("precision", "recall", "f1")
"""Scores that per-class metrics such as ``recall:soup`` are named after."""

_SHOWN_TOP = 5
_TOP = re.compile(r"top_?([1-9]\d{0,5})_accuracy")
_SLOW_CLASSES = 1000
_CELLS = 4_000_000
"""Maximum size of a temporary array: 32 MB of float64."""


def metrics_of_one_class() -> Iterator[Metric]:
    """Yield the metrics of labels that are one class each."""
    yield Metric("accuracy", _accuracy)
    yield Metric("balanced_accuracy", _balanced_accuracy)
    # With one label for each example, the micro averages are the accuracy.
    yield from _averages(on_request=("micro",))
    yield Metric("matthews_correlation", _matthews_correlation)
    yield Metric("cohen_kappa", _cohen_kappa)
    for weights, power in (("linear", 1), ("quadratic", 2)):  # for ordinal classes
        yield Metric(f"cohen_kappa_{weights}", partial(_weighted_kappa, power), on_request=True)
    yield top_k_metric(f"top{_SHOWN_TOP}_accuracy", _SHOWN_TOP)
    yield from _rankings()
    yield Metric("log_loss", _log_loss, greater_is_better=False)


def metrics_of_many_classes() -> Iterator[Metric]:
    """Yield the metrics of labels that are any number of classes each."""
    yield from _averages(on_request=())
    yield Metric("exact_match", _accuracy)
    yield from _rankings()
    yield Metric("log_loss", _log_loss, greater_is_better=False, needs_all_scores=True)


def _averages(on_request: tuple[str, ...]) -> Iterator[Metric]:
    """Yield precision, recall and F1, averaged over the classes; some averages only on request."""
    for average in ("micro", "macro", "weighted"):
        for score in CLASS_SCORES:
            compute = _averaged(score, average)
            yield Metric(f"{score}_{average}", compute, on_request=average in on_request)


def _rankings() -> Iterator[Metric]:
    """Yield the metrics of the order of the examples by each class's probability."""
    yield Metric("roc_auc", _roc_auc, most_classes=_SLOW_CLASSES, needs_all_scores=True)
    yield Metric(
        "mean_average_precision", _mean_average_precision, most_classes=MANY_CLASSES, needs_all_scores=True
    )


def top_k_metric(name: str, k: int) -> Metric:
    """Return the fraction of examples whose class is among the k most probable."""
    return Metric(name, partial(_top_k_accuracy, k=k), fewest_classes=k + 1)


def metric_of_one_class(name: str, settings: MetricSettings) -> Metric | None:
    """Return ``top_K_accuracy``, a per-class metric, or, if there are costs, a metric of them; else None."""
    k = top_k(name)
    if k is not None:
        return top_k_metric(name, k)
    if name in COST_METRICS and settings.costs:
        compute = partial(_expected_cost, name, settings.cost_matrix())
        return Metric(name, compute, greater_is_better=False, needs_all_scores=name == COST_METRICS[1])
    return class_metric(name, settings)


def class_metric(name: str, settings: MetricSettings) -> Metric | None:
    """Return a per-class metric such as ``recall:soup``; None for any other name."""
    score, label = split_class_metric(name)
    if label not in settings.label_names:
        return None
    return Metric(name, partial(_of_class, score, settings.label_names.index(label)))


def top_k(name: str) -> int | None:
    """Return k of ``top_K_accuracy`` (or ``topK_accuracy``); None for any other name."""
    match = _TOP.fullmatch(name)
    return int(match[1]) if match else None


def split_class_metric(name: str) -> tuple[str, str | None]:
    """Return score and class of a name such as ``recall:soup``; for any other name, the name itself and None."""
    score, colon, label = name.partition(":")
    return (score, label) if colon and score in CLASS_SCORES else (name, None)


def _averaged(score: str, average: str) -> Compute:
    """Return a function that averages a per-class score over the classes in labels or decisions; 0 for 0 / 0."""

    def compute(labels: np.ndarray, decisions: np.ndarray, scores: np.ndarray) -> float:
        if labels.ndim == 1 and scores.shape[1] > MANY_CLASSES:
            return _averaged_counts(score, average, *_counts(labels, decisions, scores.shape[1]))
        labels, decisions = fill_unknown(labels, decisions)
        # scikit-learn interprets a single column of zeros and ones as two classes.
        single = {"labels": [1]} if labels.shape[1:] == (1,) else {}
        compute_score = getattr(sklearn_metrics, f"{score}_score")
        return float(compute_score(labels, decisions, average=average, zero_division=0, **single))

    return compute


def _accuracy(labels: np.ndarray, decisions: np.ndarray, scores: np.ndarray) -> float:
    """Compute the fraction of correct examples. For multi-label data every known label of the example must match."""
    return sklearn_metrics.accuracy_score(*fill_unknown(labels, decisions))


def _balanced_accuracy(labels: np.ndarray, decisions: np.ndarray, scores: np.ndarray) -> float:
    """Compute the mean recall of the classes that occur in the labels."""
    if scores.shape[1] > MANY_CLASSES:
        members, _, hits = _counts(labels, decisions, scores.shape[1])
        return float((hits[members > 0] / members[members > 0]).mean())
    return sklearn_metrics.recall_score(
        labels, decisions, labels=np.unique(labels), average="macro", zero_division=0
    )


def _counts(
    labels: np.ndarray, decisions: np.ndarray, classes: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Count by class [classes] the labels (members), the decisions (answers) and the correct decisions (hits)."""
    parts = (labels, decisions, labels[labels == decisions])
    members, answers, hits = (np.bincount(part, minlength=classes).astype(np.float64) for part in parts)
    return members, answers, hits


def _averaged_counts(
    score: str, average: str, members: np.ndarray, answers: np.ndarray, hits: np.ndarray
) -> float:
    """Compute the average of ``_averaged`` for single-label data from the counts of each class [classes]."""
    of = {"precision": answers, "recall": members, "f1": (members + answers) / 2}[score]
    if average == "micro":
        return float(hits.sum() / of.sum())
    values = np.divide(hits, of, out=np.zeros_like(hits), where=of > 0)
    weights = members if average == "weighted" else (members + answers > 0).astype(np.float64)
    return float((values * weights).sum() / weights.sum())


def _matthews_correlation(labels: np.ndarray, decisions: np.ndarray, scores: np.ndarray) -> float:
    return matthews_correlation(*_counts(labels, decisions, scores.shape[1])).item()


def _cohen_kappa(labels: np.ndarray, decisions: np.ndarray, scores: np.ndarray) -> float:
    return cohen_kappa(*_counts(labels, decisions, scores.shape[1])).item()


def _weighted_kappa(power: int, labels: np.ndarray, decisions: np.ndarray, scores: np.ndarray) -> float:
    members, answers, _ = _counts(labels, decisions, scores.shape[1])
    distances = (np.abs(labels - decisions) ** power).sum().astype(np.float64)
    return weighted_kappa(members, answers, distances, squared=power == 2).item()


def _top_k_accuracy(labels: np.ndarray, decisions: np.ndarray, scores: np.ndarray, k: int) -> float:
    """Compute the fraction of examples whose class is among the k most probable; 1 if there are at most k classes."""
    classes = scores.shape[1]
    if classes <= k:
        return 1.0
    if isinstance(scores, TopScores) or classes > MANY_CLASSES:
        ranks = scores.ranks if isinstance(scores, TopScores) else label_ranks(scores, labels)
        return float(np.mean(ranks < k))
    if classes == 2:  # scikit-learn expects binary scores [examples] here, not two columns
        return sklearn_metrics.accuracy_score(labels, decisions)
    return sklearn_metrics.top_k_accuracy_score(labels, scores, k=k, labels=np.arange(classes))


def _of_class(score: str, index: int, labels: np.ndarray, decisions: np.ndarray, scores: np.ndarray) -> float:
    """Compute precision, recall or F1 of one class against the rest; 0 for 0 / 0."""
    if labels.ndim == 2:
        members, answers = (array[:, index] for array in fill_unknown(labels, decisions))
    else:
        members, answers = labels == index, decisions == index
    compute = {"precision": "precision_score", "recall": "recall_score", "f1": "f1_score"}[score]
    return getattr(sklearn_metrics, compute)(members, answers, zero_division=0)


def _expected_cost(
    name: str, matrix: np.ndarray, labels: np.ndarray, decisions: np.ndarray, scores: np.ndarray
) -> float:
    """Compute the mean cost of deciding for the most probable class, or (Bayes) for the class of least expected cost.

    Source: Elkan 2001, The foundations of cost-sensitive learning.
    """
    if name == "expected_cost_bayes":
        decisions = (scores @ matrix).argmin(axis=1)
    return matrix[labels, decisions].mean()


def _members(labels: np.ndarray, classes: int) -> np.ndarray:
    """Return whether each example belongs to each class [examples, classes]."""
    return labels if labels.ndim == 2 else labels[:, None] == np.arange(classes)


def _mean_average_precision(labels: np.ndarray, decisions: np.ndarray, scores: np.ndarray) -> float:
    """Compute the mean over the classes of the average precision of each class against the rest.

    Classes without examples have no average precision and are left out. nan if no class has an example.
    """
    members = _members(labels, scores.shape[1])
    columns = zip(members.T, scores.T, is_known(members).T, strict=True)
    values = [
        sklearn_metrics.average_precision_score(column[known], likely[known])
        for column, likely, known in columns
        if column[known].any()
    ]
    return np.mean(values) if values else np.nan


def _roc_auc(labels: np.ndarray, decisions: np.ndarray, scores: np.ndarray) -> float:
    """Compute the mean over the classes of the area under the ROC curve of each class against the rest.

    Classes that all examples or none belong to have no curve and are left out. nan if no class has a curve.
    """
    if labels.ndim == 1 and scores.shape[1] > MANY_CLASSES:
        return _areas_by_rank(labels, scores)
    members = _members(labels, scores.shape[1])
    columns = zip(members.T, scores.T, is_known(members).T, strict=True)
    areas = [
        sklearn_metrics.roc_auc_score(column[known], likely[known])
        for column, likely, known in columns
        if len(np.unique(column[known])) > 1
    ]
    return np.mean(areas) if areas else np.nan


def _areas_by_rank(labels: np.ndarray, scores: np.ndarray) -> float:
    """Compute the mean area of ``_roc_auc`` from the ranks of the members of each class, many classes at once.

    Source: Mann & Whitney 1947; the area is the fraction of pairs of a member and a non-member in the correct order.
    """
    areas = []
    for classes in np.array_split(np.unique(labels), max(1, len(labels) * scores.shape[1] // _CELLS)):
        members = labels[:, None] == classes
        counts = members.sum(axis=0)
        others = len(labels) - counts
        sums = np.where(members, stats.rankdata(scores[:, classes], axis=0), 0.0).sum(axis=0)
        drawn = others > 0
        areas.append((sums - counts * (counts + 1) / 2)[drawn] / (counts * others)[drawn])
    every = np.concatenate(areas)
    return float(every.mean()) if len(every) else np.nan


def _log_loss(labels: np.ndarray, decisions: np.ndarray, scores: np.ndarray) -> float:
    """Compute the mean cross-entropy in nats: per example, or for multi-label data per example and class."""
    if labels.ndim == 2:
        known = is_known(labels)
        return sklearn_metrics.log_loss(labels[known], scores[known], labels=[0, 1])
    if isinstance(scores, TopScores) or scores.shape[1] > MANY_CLASSES:
        of_label = (
            scores.of_label if isinstance(scores, TopScores) else scores[np.arange(len(labels)), labels]
        )
        least = np.finfo(np.float64).eps  # as in scikit-learn
        return float(-np.log(np.clip(of_label, least, 1 - least)).mean())
    return sklearn_metrics.log_loss(labels, scores, labels=np.arange(scores.shape[1]))
