"""Registry of the metrics that this package computes itself, with scikit-learn and SciPy and without network access.

Labels are class indices [examples] (single_label), zeros and ones [examples, classes] (multi_label; nan marks an
unknown label, which no metric counts) or continuous targets [examples] (regression). Scores are probabilities
[examples, classes], or regression predictions [examples]. Decisions are the most probable class [examples], or for
multi-label data zeros and ones by threshold [examples, classes].
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from types import MappingProxyType

import numpy as np
from scipy.stats import rankdata, spearmanr
from sklearn import metrics as sklearn_metrics

from hf_finetune.evaluation.agreement import cohen_kappa, matthews_correlation, weighted_kappa
from hf_finetune.evaluation.costs import CostTable, cost_matrix
from hf_finetune.evaluation.top_scores import MANY_CLASSES, TopScores, label_ranks
from hf_finetune.evaluation.unknown_labels import fill_unknown, is_known
from hf_finetune.targets import TARGETS, MultiLabel, Regression, SingleLabel
from hf_finetune.targets.labels import Target

__all__ = [
    "ALIASES",
    "CLASS_SCORES",
    "COST_METRICS",
    "METRICS",
    "NO_SETTINGS",
    "Metric",
    "MetricSettings",
    "find_metric",
    "needs_all_scores",
    "split_class_metric",
    "top_k",
]

COST_METRICS = ("expected_cost", "expected_cost_bayes")
"""Metrics of the mean misclassification cost: of deciding for the most probable class, and for the class of least
expected cost."""
CLASS_SCORES = ("precision", "recall", "f1")
"""Scores that per-class metrics such as ``recall:soup`` are named after."""

ALIASES: Mapping[str, str] = MappingProxyType(
    {
        "mcc": "matthews_correlation",
        "matthews_corrcoef": "matthews_correlation",
        "kappa": "cohen_kappa",
        "cohen_kappa_score": "cohen_kappa",
        "cohens_kappa": "cohen_kappa",
        "linear_weighted_kappa": "cohen_kappa_linear",
        "quadratic_weighted_kappa": "cohen_kappa_quadratic",
        "quadratic_kappa": "cohen_kappa_quadratic",
        "qwk": "cohen_kappa_quadratic",
        "accuracy_score": "accuracy",
        "balanced_accuracy_score": "balanced_accuracy",
        "top_k_accuracy": "top_3_accuracy",
        "top_k_accuracy_score": "top_3_accuracy",
        "topk_accuracy": "top_3_accuracy",
        "map": "mean_average_precision",
        "average_precision": "mean_average_precision",
        "average_precision_score": "mean_average_precision",
        "roc_auc_score": "roc_auc",
        "roc_auc_ovr": "roc_auc",
        "auroc": "roc_auc",
        "auc": "roc_auc",
        "cross_entropy": "log_loss",
        "neg_log_loss": "log_loss",
        "nll": "log_loss",
        "subset_accuracy": "exact_match",
        "precision": "precision_macro",
        "precision_score": "precision_macro",
        "recall": "recall_macro",
        "recall_score": "recall_macro",
        "f1": "f1_macro",
        "f1_score": "f1_macro",
        "macro_f1": "f1_macro",
        "micro_f1": "f1_micro",
        "weighted_f1": "f1_weighted",
        "mean_absolute_error": "mae",
        "neg_mean_absolute_error": "mae",
        "root_mean_squared_error": "rmse",
        "neg_root_mean_squared_error": "rmse",
        "r2_score": "r2",
        "r_squared": "r2",
        "spearmanr": "spearman",
    }
)
"""Metric names of this package by the names used in scikit-learn, evaluate and everyday language."""

_SHOWN_TOP = 5
_TOP = re.compile(r"top_?([1-9]\d{0,5})_accuracy")
_SLOW_CLASSES = 1000
_CELLS = 4_000_000
"""Maximum size of a temporary array: 32 MB of float64."""
_OF_ALL_SCORES = ("roc_auc", "mean_average_precision", "expected_cost_bayes")

Compute = Callable[[np.ndarray, np.ndarray, np.ndarray], float]


@dataclass(frozen=True)
class MetricSettings:
    """Classes and costs, which some metrics need in addition to labels and scores.

    Attributes:
        label_names: Class names in the order of the model, for per-class metrics.
        costs: ``evaluation.costs`` of the recipe; empty without any.
    """

    label_names: tuple[str, ...] = ()
    costs: CostTable = field(default_factory=dict)

    def cost_matrix(self) -> np.ndarray:
        """Return the costs [classes, classes], indexed by true class and decision."""
        return cost_matrix(self.costs, self.label_names)


NO_SETTINGS = MetricSettings()


@dataclass(frozen=True)
class Metric:
    """Metric with its name, function and properties.

    Attributes:
        name: Name in recipes and in metrics.json.
        targets: Label types that it is defined for.
        compute: Function of labels, decisions and scores that returns the value.
        greater_is_better: Whether greater values are better.
        fewest_classes: Number of classes below which it is meaningless.
        most_classes: Number of classes above which it is too slow to be computed by default; None for no limit.
        on_request: Label types for which it is computed only if a recipe or a command requests it.
    """

    name: str
    targets: tuple[Target, ...]
    compute: Compute
    greater_is_better: bool = True
    fewest_classes: int = 1
    most_classes: int | None = None
    on_request: tuple[Target, ...] = ()


def find_metric(name: str, settings: MetricSettings = NO_SETTINGS) -> Metric | None:
    """Return the metric with a name; None if there is none.

    Args:
        name: Key of ``METRICS``, ``top_K_accuracy``, per-class metric such as ``recall:soup``, or, if there are costs,
            ``expected_cost`` or ``expected_cost_bayes``.
        settings: Classes and costs, for the metrics that need them.
    """
    if name in METRICS:
        return METRICS[name]
    k = top_k(name)
    if k is not None:
        return Metric(name, (SingleLabel.name,), partial(_top_k_accuracy, k=k), fewest_classes=k + 1)
    score, label = split_class_metric(name)
    if label in settings.label_names:
        index = settings.label_names.index(label)
        return Metric(name, (SingleLabel.name, MultiLabel.name), partial(_of_class, score, index))
    if name in COST_METRICS and settings.costs:
        compute = partial(_expected_cost, name, settings.cost_matrix())
        return Metric(name, (SingleLabel.name,), compute, greater_is_better=False)
    return None


def top_k(name: str) -> int | None:
    """Return k of ``top_K_accuracy`` (or ``topK_accuracy``); None for any other name.

    Args:
        name: Name of a metric.
    """
    match = _TOP.fullmatch(name)
    return int(match[1]) if match else None


def split_class_metric(name: str) -> tuple[str, str | None]:
    """Return score and class of a name such as ``recall:soup``; for any other name, the name itself and None.

    Args:
        name: Name of a metric.
    """
    score, colon, label = name.partition(":")
    return (score, label) if colon and score in CLASS_SCORES else (name, None)


def _averaged(score: Callable[..., float], average: str) -> Compute:
    """Return a function that averages a per-class score over the classes in labels or decisions; 0 for 0 / 0."""

    def compute(labels: np.ndarray, decisions: np.ndarray, scores: np.ndarray) -> float:
        if labels.ndim == 1 and scores.shape[1] > MANY_CLASSES:
            name = score.__name__.removesuffix("_score")
            return _averaged_counts(name, average, *_counts(labels, decisions, scores.shape[1]))
        labels, decisions = fill_unknown(labels, decisions)
        # scikit-learn interprets a single column of zeros and ones as two classes.
        single = {"labels": [1]} if labels.shape[1:] == (1,) else {}
        return score(labels, decisions, average=average, zero_division=0, **single)

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


def needs_all_scores(name: str, target: Target) -> bool:
    """Return whether a metric needs the probabilities of all classes, not only the highest ones.

    Args:
        name: Name of the metric.
        target: Label type; the log loss of multi-label data needs all classes as well.
    """
    return name in _OF_ALL_SCORES or (name == "log_loss" and TARGETS[target].has_several_classes)


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
        sums = np.where(members, rankdata(scores[:, classes], axis=0), 0.0).sum(axis=0)
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
    return spearmanr(labels, scores).statistic


def _registry() -> Iterator[Metric]:
    single, multi, regression = SingleLabel.name, MultiLabel.name, Regression.name
    precision, recall, f1 = (
        partial(_averaged, score)
        for score in (sklearn_metrics.precision_score, sklearn_metrics.recall_score, sklearn_metrics.f1_score)
    )
    yield Metric("accuracy", (single,), _accuracy)
    yield Metric("balanced_accuracy", (single,), _balanced_accuracy)
    # With one label for each example, the micro averages are the accuracy.
    on_request: dict[str, tuple[Target, ...]] = {"micro": (single,), "macro": (), "weighted": ()}
    for average, targets in on_request.items():
        yield Metric(f"precision_{average}", (single, multi), precision(average), on_request=targets)
        yield Metric(f"recall_{average}", (single, multi), recall(average), on_request=targets)
        yield Metric(f"f1_{average}", (single, multi), f1(average), on_request=targets)
    yield Metric("exact_match", (multi,), _accuracy)
    yield Metric("matthews_correlation", (single,), _matthews_correlation)
    yield Metric("cohen_kappa", (single,), _cohen_kappa)
    for weights, power in (("linear", 1), ("quadratic", 2)):  # for ordinal classes
        compute = partial(_weighted_kappa, power)
        yield Metric(f"cohen_kappa_{weights}", (single,), compute, on_request=(single,))
    top = partial(_top_k_accuracy, k=_SHOWN_TOP)
    yield Metric(f"top{_SHOWN_TOP}_accuracy", (single,), top, fewest_classes=_SHOWN_TOP + 1)
    yield Metric("roc_auc", (single, multi), _roc_auc, most_classes=_SLOW_CLASSES)
    yield Metric(
        "mean_average_precision", (single, multi), _mean_average_precision, most_classes=MANY_CLASSES
    )
    yield Metric("log_loss", (single, multi), _log_loss, greater_is_better=False)
    yield Metric("mae", (regression,), _mae, greater_is_better=False)
    yield Metric("rmse", (regression,), _rmse, greater_is_better=False)
    yield Metric("r2", (regression,), _r2)
    yield Metric("spearman", (regression,), _spearman)


METRICS: Mapping[str, Metric] = MappingProxyType({metric.name: metric for metric in _registry()})
