"""Metrics by name, of all label types; each type has its own metrics."""

from collections.abc import Mapping
from types import MappingProxyType

from hf_finetune.targets import TARGETS
from hf_finetune.targets.class_metrics import COST_METRICS
from hf_finetune.targets.labels import TargetName
from hf_finetune.targets.metric import NO_SETTINGS, Metric, MetricSettings

__all__ = ["ALIASES", "find_metric", "known_metrics", "needs_all_scores"]

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


def known_metrics(target: TargetName | None = None) -> dict[str, Metric]:
    """Return the metrics of a label type, or of all label types, by name.

    Args:
        target: Label type; None for all types.
    """
    label_types = TARGETS.values() if target is None else (TARGETS[target],)
    return {metric.name: metric for label_type in label_types for metric in label_type.metrics}


def find_metric(
    name: str, settings: MetricSettings = NO_SETTINGS, target: TargetName | None = None
) -> Metric | None:
    """Return the metric with a name; None if there is none.

    Args:
        name: Name of ``known_metrics``, or a parametrized name such as ``top_3_accuracy`` or ``recall:soup``.
        settings: Classes and costs, for the metrics that need them.
        target: Label type that it must be defined for; None for any.
    """
    label_types = list(TARGETS.values()) if target is None else [TARGETS[target]]
    listed = (metric for label_type in label_types for metric in label_type.metrics if metric.name == name)
    parsed = (
        metric
        for label_type in label_types
        if (metric := label_type.named_metric(name, settings)) is not None
    )
    return next(listed, None) or next(parsed, None)


def needs_all_scores(name: str, target: TargetName) -> bool:
    """Return whether a metric needs the probabilities of all classes, not only the highest ones.

    Args:
        name: Name of the metric.
        target: Label type.
    """
    metric = known_metrics(target).get(name)
    return name == COST_METRICS[1] or (metric is not None and metric.needs_all_scores)
