"""Best evaluation of a stage, by the primary metric and then the validation loss, including the initial evaluation."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

__all__ = ["best_entry", "evaluations", "is_better", "is_undefined"]


def is_better(
    entry: Mapping[str, Any], previous: Mapping[str, Any] | None, metric: str, *, greater_is_better: bool
) -> bool:
    """Return whether an evaluation is better than an earlier one.

    An undefined primary metric (NaN) is worse than any number. If the metric is equal, or undefined for both, the
    lower validation loss is better; if that is equal too, the earlier evaluation.

    Args:
        entry: Metrics of the later evaluation, by their names in the Trainer's log: ``eval_accuracy``.
        previous: Metrics of the earlier evaluation; None if there is none.
        metric: Name of the primary metric, without ``eval_``.
        greater_is_better: Whether greater values of the metric are better.
    """
    if previous is None:
        return True
    return _rank(entry, metric, greater_is_better) > _rank(previous, metric, greater_is_better)


def is_undefined(entry: Mapping[str, Any], metric: str) -> bool:
    """Return whether a metric is missing or NaN in an evaluation.

    Args:
        entry: Entry of a Trainer's log, with the metrics as ``eval_NAME``.
        metric: Name of the metric.
    """
    value = entry.get(f"eval_{metric}")
    return value is None or math.isnan(value)


def evaluations(log: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the entries of a Trainer's log that are evaluations.

    Args:
        log: Entries of the log.
    """
    return [entry for entry in log if any(name.startswith("eval_") for name in entry)]


def best_entry(
    log: Iterable[Mapping[str, Any]], metric: str, *, greater_is_better: bool
) -> Mapping[str, Any] | None:
    """Return the best evaluation of a Trainer's log; None if there is none.

    Args:
        log: Entries of the log.
        metric: Name of the metric that decides; see ``is_better``.
        greater_is_better: Whether higher values of ``metric`` are better.
    """
    best: Mapping[str, Any] | None = None
    for entry in evaluations(log):
        if is_better(entry, best, metric, greater_is_better=greater_is_better):
            best = entry
    return best


def _rank(entry: Mapping[str, Any], metric: str, greater_is_better: bool) -> tuple[bool, float, float]:
    """Return a key that is greater for a better evaluation."""
    loss = entry.get("eval_loss")
    lowest_loss = -math.inf if loss is None or math.isnan(loss) else -loss
    if is_undefined(entry, metric):
        return False, 0.0, lowest_loss
    value = entry[f"eval_{metric}"]
    return True, value if greater_is_better else -value, lowest_loss
