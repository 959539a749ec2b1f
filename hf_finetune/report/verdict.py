"""Verdict on a run in a few sentences, generated from its metrics."""

from collections.abc import Mapping, Sequence
from typing import Any

from hf_finetune.evaluation.intervals import MIN_RELIABLE_GROUPS
from hf_finetune.evaluation.metrics import greater_is_better
from hf_finetune.report.run_record import RunRecord
from hf_finetune.targets import TARGETS
from hf_finetune.tasks import MODALITIES

__all__ = [
    "BASELINES",
    "baseline_name",
    "baseline_verdict",
    "calibration_verdict",
    "cross_validation_sentence",
    "leading_metric",
    "verdict",
]

SIMPLE_FEATURES = {
    features.name: features.title
    for modality in MODALITIES.values()
    if (features := modality.simple_features) is not None
}
"""Titles of the features of baselines without a checkpoint, by their names."""
SIMPLE_MODELS = {
    name: title
    for modality in MODALITIES.values()
    if (models := modality.simple_models) is not None
    for name, title in models.titles.items()
}
"""Titles of baselines that are models of a modality without a checkpoint, by their names."""
NEIGHBORS = "nearest_neighbors"
BOOSTING = {
    features.boosting_name: features.title
    for modality in MODALITIES.values()
    if (features := modality.simple_features) is not None and features.boosting
}
"""Titles of the features of baselines by gradient boosting."""
UNTRAINED = "untrained"
BASELINES = ("majority", UNTRAINED, *SIMPLE_FEATURES, *BOOSTING, *SIMPLE_MODELS, NEIGHBORS, "linear_probe")
SOLVER_NAMES = {"logistic_regression": "logistic regression", "ridge": "ridge regression"}
NOT_PRETRAINED = "Nothing is pretrained here: the model began with random weights."
MAX_CALIBRATED_ECE = 0.05
"""Largest expected calibration error at which probabilities count as calibrated."""


def verdict(record: RunRecord) -> str:
    """Return sentences on the first primary metric on the test split: value, interval, comparison with baselines."""
    if "tasks" in record.metrics:
        return _multi_task_verdict(record.metrics)
    if record.predictions is None or not record.metric_names:
        return "There was no test split, so performance on new data is unknown."
    name, metrics = record.metric_names[0], record.metrics
    examples = f"{len(record.predictions.ids):,} test examples"
    if metrics["test"][name] is None:
        return f"On {examples} the {name} is undefined."
    compared = _compared(f"On {examples} the", metrics, name, record.predictions.target)
    return compared if record.is_pretrained else f"{compared} {NOT_PRETRAINED}"


def _compared(start: str, metrics: Mapping[str, Any], name: str, target: str | None = None) -> str:
    """Return sentences on the value of a metric, its comparison with the baselines, and groups that are too few."""
    value, baselines = f"{start} {_value(metrics, name)}", _baseline_values(metrics, name, target)
    comparison = f"{value}, compared with {baselines}" if baselines else value
    tested = baseline_verdict(metrics, name, target)
    return " ".join(filter(None, [f"{comparison}.", tested, _few_groups(metrics)]))


def baseline_verdict(metrics: Mapping[str, Any], name: str, target: str | None = None) -> str:
    """Return a sentence on whether the model is above, below or not distinguishable from each baseline.

    Args:
        metrics: Content of ``metrics.json``, or its section for one task of a multi-task run.
        name: Name of the primary metric.
        target: Label type: ``single_label``, ``multi_label`` or ``regression``; None takes it from the
            metrics.

    Returns:
        The sentence; empty if the metric was compared with no baseline.
    """
    if not _baseline_values(metrics, name, target):
        return ""
    if "baseline_differences" not in metrics:
        return "This run stored no predictions of its baselines, so the differences cannot be tested for significance."
    clauses, worse = [], False
    for baseline, tested in metrics["baseline_differences"].items():
        comparison = tested.get(name)
        if baseline not in BASELINES or comparison is None or comparison["difference"] is None:
            continue
        greater = greater_is_better(name)
        word = {
            "above": "above" if greater else "above (worse than)",
            "below": "below" if greater else "below (better than)",
        }.get(comparison["verdict"], "not distinguishable from")
        worse |= comparison["verdict"] == ("below" if greater else "above")
        ends = comparison["interval"]
        interval_text = f", 95 % confidence interval {ends[0]:+.3f} to {ends[1]:+.3f}" if ends else ""
        if comparison["verdict"] == "not distinguishable" and ends and not ends[0] <= 0 <= ends[1]:
            interval_text += f", but p is {comparison['p_value']:.4f}"
        difference_text = f"difference {comparison['difference']:+.3f}{interval_text}"
        clauses.append(
            f"{word} that of {_baseline(baseline, target or metrics.get('target'))} ({difference_text})"
        )
    if not clauses:
        return ""
    advice = " The simpler model is better here." if worse else ""
    return f"On the same examples, the model's {name} is {_enumerate(clauses)}.{advice}"


def leading_metric(metrics: Mapping[str, Any]) -> str | None:
    """Return the first test metric of a task in a multi-task run that is defined; None if none is."""
    names = metrics.get("test_interval") or metrics["test"]
    return next((name for name in names if metrics["test"].get(name) is not None), None)


def _value(metrics: Mapping[str, Any], name: str) -> str:
    """Return the test value and interval: ``accuracy is 0.800 (95 % confidence interval 0.700 to 0.880)``."""
    ends, groups = metrics.get("test_interval", {}).get(name), metrics.get("test_groups")
    by = f", by groups of {groups['column']}" if groups else ""
    interval_text = f" (95 % confidence interval {ends[0]:.3f} to {ends[1]:.3f}{by})" if ends else ""
    return f"{name} is {metrics['test'][name]:.3f}{interval_text}"


def _few_groups(metrics: Mapping[str, Any]) -> str:
    groups = metrics.get("test_groups")
    if not groups or groups["groups"] >= MIN_RELIABLE_GROUPS:
        return ""
    few = f"{groups['groups']} groups of {groups['column']}"
    return f"There are only {few}; intervals from so few groups are unreliable."


def _baseline_values(metrics: Mapping[str, Any], name: str, target: str | None) -> str:
    """Return a clause with the values of all baselines; empty if no baseline has the metric."""
    values = [
        f"{scores[name]:.3f} for {_baseline(baseline, target or metrics.get('target'))}"
        for baseline, scores in metrics.get("baselines", {}).items()
        if baseline in BASELINES and scores.get(name) is not None
    ]
    return _enumerate(values)


def _enumerate(parts: Sequence[str]) -> str:
    """Return clauses joined by commas, the last one by ``and``."""
    *first, last = parts or ("",)
    return f"{', '.join(first)} and {last}" if first else last


def _multi_task_verdict(metrics: Mapping[str, Any]) -> str:
    """Return sentences on the first defined metric of each task, with its baselines."""
    parts = []
    for task, task_metrics in metrics["tasks"].items():
        name = leading_metric(task_metrics)
        if name is None:
            parts.append(f"{task}: there was no test split.")
        else:
            parts.append(_compared(f"{task}: the", task_metrics, name))
    return "On the test splits of its tasks: " + " ".join(parts)


def _baseline(name: str, target: str | None) -> str:
    return f"the {baseline_name(name, target)}"


def baseline_name(name: str, target: str | None) -> str:
    """Return the display name of a baseline.

    Args:
        name: Name of the baseline, one of ``BASELINES``.
        target: Label type; None if it is not known, or for several tasks.
    """
    constant, solver = "majority-class (or mean) baseline", "logistic (or ridge) regression"
    if target is not None:
        kind = TARGETS[target]
        constant, solver = kind.constant_baseline, SOLVER_NAMES.get(kind.linear_solver or "", "linear model")
    if name == "majority":
        return constant
    if name == UNTRAINED:
        return "checkpoint before training"
    if name == NEIGHBORS:
        return "nearest neighbors (frozen features)"
    if name in SIMPLE_MODELS:
        return SIMPLE_MODELS[name]
    if name in BOOSTING:
        return f"{BOOSTING[name]} (gradient boosting)"
    return f"{SIMPLE_FEATURES.get(name, 'linear probe')} ({solver})"


def calibration_verdict(metrics: Mapping[str, Any]) -> str:
    """Return sentences on the calibration of the probabilities, and on temperature scaling where the run has it.

    Args:
        metrics: Content of ``metrics.json``.

    Returns:
        The sentences; empty if the calibration was not measured.
    """
    measured = metrics.get("test_calibration")
    if not measured:
        return ""
    ece = measured["ece"]
    filled = [bucket for bucket in measured["bins"] if bucket["count"]]
    gap = sum(bucket["count"] * (bucket["confidence"] - bucket["right"]) for bucket in filled)
    state = (
        "well calibrated" if ece <= MAX_CALIBRATED_ECE else "overconfident" if gap > 0 else "underconfident"
    )
    text = f"Probabilities are {state}: the expected calibration error (ECE) on the test split is {ece:.3f}."
    fitted = metrics.get("calibration")
    if not fitted:
        return text
    temperature = f"the temperature {fitted['temperature']:.2f}, fitted on the validation split"
    applied = {
        "head": f"The head is divided by {temperature}, so every program gets these probabilities.",
        "predict": f"hf-finetune's predict and evaluate divide logits by {temperature}; other programs do not.",
    }.get(fitted["applied"])
    if applied:
        return f"{text} {applied}"
    before, after = (fitted["validation"][when]["ece"] for when in ("before", "after"))
    if ece > MAX_CALIBRATED_ECE and after < before:
        return (
            f"{text} A temperature of {fitted['temperature']:.2f}, fitted on the validation split, would reduce the "
            f"ECE on that split from {before:.3f} to {after:.3f} (evaluation.calibrate: true)."
        )
    return text


def cross_validation_sentence(metrics: Mapping[str, Any], name: str) -> str:
    """Return a sentence on the mean and standard deviation of a metric in cross-validation; empty if there is none.

    Args:
        metrics: Content of ``metrics.json``.
        name: Name of the metric.
    """
    result = metrics.get("cross_validation")
    spread = result["metrics"].get(name) if result else None
    if not result or not spread or spread["mean"] is None:
        return ""
    values = ", ".join(f"{value:.3f}" for value in spread["values"])
    return (
        f"In {result['folds']}-fold cross-validation the mean {name} is {spread['mean']:.3f}, with a "
        f"standard deviation of {spread['std']:.3f} ({values})."
    )
