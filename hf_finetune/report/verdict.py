"""What a run is worth, in a few sentences: made of its numbers and nothing else."""

from collections.abc import Mapping
from typing import Any

from hf_finetune.evaluation.metrics import greater_is_better
from hf_finetune.report.record import RunRecord

__all__ = ["BASELINES", "calibration_verdict", "spread_verdict", "verdict"]

BASELINES = {
    "majority": "an answer that ignores the input",
    "linear_probe": "a logistic regression on the frozen checkpoint",
}
WELL = 0.05
"""Calibration error up to which probabilities are said to mean what they say."""


def verdict(record: RunRecord) -> str:
    """Say in one sentence how good the model is on the test split, how surely, and beside which baselines."""
    if "tasks" in record.metrics:
        return _of_tasks(record.metrics)
    if record.predictions is None or not record.headline:
        return "There was no test split, so nothing is known of how good this model is on other data."
    name = record.headline[0]
    value, ends = record.metrics["test"][name], record.metrics.get("test_interval", {}).get(name)
    examples = f"{len(record.predictions.ids):,} test examples"
    if value is None:
        return f"On {examples} the {name} is undefined."
    surely = f" (95 % interval {ends[0]:.3f} to {ends[1]:.3f})" if ends else ""
    beside = [
        f"{_baseline(record, baseline)} has {found[name]:.3f}"
        for baseline, found in record.metrics.get("baselines", {}).items()
        if baseline in BASELINES and found.get(name) is not None
    ]
    sentence = f"On {examples} the {name} is {value:.3f}{surely}"
    compared = f"; {' and '.join(beside)}" if beside else ""
    return f"{sentence}{compared}.{_doubt(record, name, value, ends)}"


def _of_tasks(metrics: Mapping[str, Any]) -> str:
    """Say the first metric of each of several tasks, beside that of the better baseline."""
    said = []
    for task, found in metrics["tasks"].items():
        name = next((each for each in found["test"] if found["test"][each] is not None), None)
        if name is None:
            said.append(f"{task}: there was no test split")
            continue
        ends = found["test_interval"].get(name)
        surely = f" (95 % interval {ends[0]:.3f} to {ends[1]:.3f})" if ends else ""
        beside = [
            f"{BASELINES[baseline]} has {values[name]:.3f}"
            for baseline, values in found["baselines"].items()
            if values.get(name) is not None
        ]
        said.append("; ".join([f"{task}: the {name} is {found['test'][name]:.3f}{surely}", *beside]))
    return "On the test splits of its tasks: " + ". ".join(said) + "."


def _baseline(record: RunRecord, name: str) -> str:
    said = BASELINES[name]
    amounts = record.predictions is not None and record.predictions.target == "regression"
    return said.replace("logistic", "ridge") if amounts else said


def _doubt(record: RunRecord, name: str, value: float, ends: Any) -> str:
    """Say so where a baseline is within the interval: then the fine-tuning is not shown to be worth its time."""
    if not ends:
        return ""
    for baseline, found in record.metrics.get("baselines", {}).items():
        other = found.get(name)
        if baseline not in BASELINES or other is None:
            continue
        better = other >= ends[0] if greater_is_better(name) else other <= ends[1]
        if better:
            return f" So it is not shown to be better than {_baseline(record, baseline)}."
    return ""


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
