"""The value of a run in a few sentences: made of its numbers and nothing else."""

from collections.abc import Mapping
from typing import Any

from hf_finetune.evaluation.intervals import FEW_GROUPS
from hf_finetune.evaluation.metrics import greater_is_better
from hf_finetune.report.run_record import RunRecord

__all__ = [
    "BASELINES",
    "baseline_verdict",
    "calibration_verdict",
    "leading_metric",
    "spread_verdict",
    "verdict",
]

BASELINES = {
    "majority": "an answer that ignores the input",
    "linear_probe": "a logistic regression on the frozen checkpoint",
}
WELL = 0.05
"""Calibration error up to which probabilities are said to mean what they say."""


def verdict(record: RunRecord) -> str:
    """Return how good the model is on the test split, how surely, and whether it is above its baselines."""
    if "tasks" in record.metrics:
        return _of_tasks(record.metrics)
    if record.predictions is None or not record.headline:
        return "There was no test split, so nothing is known of how good this model is on other data."
    name, metrics = record.headline[0], record.metrics
    examples = f"{len(record.predictions.ids):,} test examples"
    if metrics["test"][name] is None:
        return f"On {examples} the {name} is undefined."
    target = record.predictions.target
    sentence = "; ".join(
        [f"On {examples} the {_value(metrics, name)}", *_baseline_values(metrics, name, target)]
    )
    return " ".join(
        filter(None, [f"{sentence}.", baseline_verdict(metrics, name, target), _few_groups(metrics)])
    )


def baseline_verdict(metrics: Mapping[str, Any], name: str, target: str | None = None) -> str:
    """Return whether the model is above or below each baseline, or the test examples cannot tell.

    Args:
        metrics: The content of ``metrics.json``, or what it holds of one of several tasks.
        name: The leading metric.
        target: What the labels are; None takes what the metrics say.
    """
    if not _baseline_values(metrics, name, target):
        return ""
    if "baseline_differences" not in metrics:
        return "This run has kept no predictions of its baselines, so it is not known which differences may be chance."
    clauses, worse = [], False
    for baseline, tested in metrics["baseline_differences"].items():
        found = tested.get(name)
        if baseline not in BASELINES or found is None or found["difference"] is None:
            continue
        greater = greater_is_better(name)
        word = {
            "above": "above" if greater else "above (worse than)",
            "below": "below" if greater else "below (better than)",
        }.get(found["verdict"], "not distinguishable from")
        worse |= found["verdict"] == ("below" if greater else "above")
        ends = found["interval"]
        surely = f", 95 % interval {ends[0]:+.3f} to {ends[1]:+.3f}" if ends else ""
        if found["verdict"] == "not distinguishable" and ends and not ends[0] <= 0 <= ends[1]:
            surely += f", but p is {found['p_value']:.4f}"
        apart = f"difference {found['difference']:+.3f}{surely}"
        clauses.append(f"{word} {_baseline(baseline, target or metrics.get('target'))} ({apart})")
    if not clauses:
        return ""
    advice = " The simpler model is the better one here." if worse else ""
    return f"Tested on the same examples, that is {' and '.join(clauses)}.{advice}"


def leading_metric(metrics: Mapping[str, Any]) -> str | None:
    """Return the first metric that one of several tasks was asked for and that is defined; None if none is."""
    names = metrics.get("test_interval") or metrics["test"]
    return next((name for name in names if metrics["test"].get(name) is not None), None)


def _value(metrics: Mapping[str, Any], name: str) -> str:
    """Return the value of a metric with its interval: ``accuracy is 0.800 (95 % interval 0.700 to 0.880)``."""
    ends, groups = metrics.get("test_interval", {}).get(name), metrics.get("test_groups")
    by = f", by groups of {groups['column']}" if groups else ""
    surely = f" (95 % interval {ends[0]:.3f} to {ends[1]:.3f}{by})" if ends else ""
    return f"{name} is {metrics['test'][name]:.3f}{surely}"


def _few_groups(metrics: Mapping[str, Any]) -> str:
    groups = metrics.get("test_groups")
    if not groups or groups["groups"] >= FEW_GROUPS:
        return ""
    few = f"{groups['groups']} groups of {groups['column']}"
    return f"There are only {few}: intervals of so few are not to be relied on."


def _baseline_values(metrics: Mapping[str, Any], name: str, target: str | None) -> list[str]:
    """Return a clause on the value of each baseline that has one, joined into one; nothing if none has."""
    values = [
        f"{_baseline(baseline, target or metrics.get('target'))} has {found[name]:.3f}"
        for baseline, found in metrics.get("baselines", {}).items()
        if baseline in BASELINES and found.get(name) is not None
    ]
    return [" and ".join(values)] if values else []


def _of_tasks(metrics: Mapping[str, Any]) -> str:
    """Return the first metric of each of several tasks, and whether it is above its baselines."""
    parts = []
    for task, found in metrics["tasks"].items():
        name = leading_metric(found)
        if name is None:
            parts.append(f"{task}: there was no test split.")
            continue
        sentence = "; ".join([f"{task}: the {_value(found, name)}", *_baseline_values(found, name, None)])
        tested = baseline_verdict(found, name)
        parts.append(" ".join(filter(None, [f"{sentence}.", tested, _few_groups(found)])))
    return "On the test splits of its tasks: " + " ".join(parts)


def _baseline(name: str, target: str | None) -> str:
    words = BASELINES[name]
    return words.replace("logistic", "ridge") if target == "regression" else words


def calibration_verdict(metrics: Mapping[str, Any]) -> str:
    """Say whether probabilities mean what they say, and what was done or can be done about it."""
    found = metrics.get("test_calibration")
    if not found:
        return ""
    ece = found["ece"]
    gap = sum(each["count"] * (each["confidence"] - each["right"]) for each in found["bins"] if each["count"])
    if ece <= WELL:
        said = f"Probabilities mean about what they say: on the test split they are off by {ece:.3f} in the mean (ECE)."
    else:
        how = "too sure" if gap > 0 else "not sure enough"
        said = f"Probabilities are {how}: on the test split they are off by {ece:.3f} in the mean (ECE)."
    fitted = metrics.get("calibration")
    if not fitted:
        return said
    temperature = f"the temperature {fitted['temperature']:.2f}, fitted on the validation split"
    applied = {
        "head": f"The head is divided by {temperature}, so every program gets these probabilities.",
        "predict": f"hf-finetune's predict and evaluate divide logits by {temperature}; other programs do not.",
    }.get(fitted["applied"])
    if applied:
        return f"{said} {applied}"
    before, after = (fitted["validation"][when]["ece"] for when in ("before", "after"))
    if ece > WELL and after < before:
        better = f"{temperature} takes that from {before:.3f} to {after:.3f} there"
        return f"{said} With evaluation.calibrate: true, {better}."
    return said


def spread_verdict(metrics: Mapping[str, Any], name: str) -> str:
    """Say what the cross-validation found; nothing if there was none."""
    found = metrics.get("cross_validation")
    spread = found["metrics"].get(name) if found else None
    if not found or not spread or spread["mean"] is None:
        return ""
    values = ", ".join(f"{value:.3f}" for value in spread["values"])
    return (
        f"In a cross-validation of {found['folds']} folds the {name} is {spread['mean']:.3f} in the mean, with a "
        f"standard deviation of {spread['std']:.3f} ({values})."
    )
