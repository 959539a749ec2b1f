"""Explanations of metrics that are undefined on the examples, or that do not depend on the model."""

from collections.abc import Iterator

import numpy as np

from hf_finetune.evaluation.evaluate import EvaluationResult
from hf_finetune.evaluation.registry import needs_all_scores
from hf_finetune.targets import TARGETS
from hf_finetune.targets.top_scores import TopScores
from hf_finetune.targets.unknown_labels import is_known

__all__ = ["undefined_notes"]

_MAP = "mean_average_precision"
_NOTHING_TO_RANK = "no class has both positive and negative examples"


def undefined_notes(result: EvaluationResult) -> tuple[str, ...]:
    """Return a sentence for each reason why metrics are undefined, and one if mean average precision is always 1.

    Args:
        result: Metrics, with the labels and scores they were computed from.
    """
    reasons: dict[str, list[str]] = {}
    for name, value in result.metrics.items():
        if np.isnan(value):
            reasons.setdefault(_reason(name, result), []).append(name)
    notes = [
        f"{', '.join(names)} {'is' if len(names) == 1 else 'are'} undefined: {reason}."
        for reason, names in reasons.items()
    ]
    has_value = np.isfinite(result.metrics.get(_MAP, np.nan))
    if has_value and TARGETS[result.target].has_classes and (reason := _no_ranking_reason(result)):
        notes.append(f"{_MAP} is 1 whatever the model predicts: {reason}.")
    return tuple(notes)


def _reason(name: str, result: EvaluationResult) -> str:
    """Return the reason why a metric is undefined."""
    if isinstance(result.scores, TopScores) and needs_all_scores(name, result.target):
        return "only the highest probabilities of each example are stored"
    kind = TARGETS[result.target]
    if kind.has_several_classes and name == _MAP:
        return "no example has a class"
    reason = ""
    if kind.is_numeric:
        reason = _constant_reason(result)
    elif kind.has_classes:
        reason = _no_ranking_reason(result)
    return reason or "it has no value on these examples"


def _constant_reason(result: EvaluationResult) -> str:
    """Return why metrics of numbers are undefined (constant labels or predictions); empty if neither applies."""
    if len(result.labels) == 1:
        return "there is one example"
    if np.ptp(result.labels) == 0:
        return "all labels are equal"
    return "all predictions are equal" if np.ptp(result.scores) == 0 else ""


def _no_ranking_reason(result: EvaluationResult) -> str:
    """Return the reason why no class has both positive and negative examples; empty if a class has both."""
    if TARGETS[result.target].has_several_classes:
        return _NOTHING_TO_RANK if all(len(values) < 2 for values in _known_values(result)) else ""
    classes = np.unique(result.labels)
    return f"every example is of the class {result.label_names[classes[0]]!r}" if len(classes) == 1 else ""


def _known_values(result: EvaluationResult) -> Iterator[np.ndarray]:
    """Yield the distinct known labels of each class."""
    for column in result.labels.T:
        yield np.unique(column[is_known(column)])
