"""How good a model is for each value of a column of the data: its slices."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from datasets import Dataset

from hf_finetune.data.slices import DISTINCT, SLICE, number_name, slice_columns
from hf_finetune.evaluation.evaluate import EvaluationResult
from hf_finetune.evaluation.intervals import intervals
from hf_finetune.evaluation.metrics import compute_metrics, greater_is_better, without_nan

__all__ = ["ENOUGH", "MISSING", "judge_slices", "name_slices", "quartiles", "sliced", "training_slices"]

MISSING = "(missing)"
ENOUGH = 20
"""Examples from which on a slice is judged: of fewer, an interval is wider than any difference of use."""
SHARES: Mapping[str, str] = {"single_label": "accuracy", "multi_label": "exact_match"}
"""Metric that is given beside the leading one, by target."""


def quartiles(values: Sequence[Any]) -> list[float] | None:
    """Give the three ends between quarters of a column of many different numbers; None for any other column.

    Args:
        values: Of the training examples; None where there is none.
    """
    known = [value for value in values if value is not None]
    if any(isinstance(value, str) for value in known) or len(set(known)) <= DISTINCT:
        return None
    return [float(end) for end in np.unique(np.quantile(known, (0.25, 0.5, 0.75)))]


def name_slices(values: Sequence[Any], ends: Sequence[float] | None) -> list[str]:
    """Name the slice of each value: the value itself, the quarter that it is in, or ``(missing)``.

    Args:
        values: Of a column.
        ends: Of its quarters; a value at an end belongs below it. None for a column that is not divided so.
    """
    names = _apart(ends) if ends is not None else []
    return [MISSING if value is None else _name(value, ends, names) for value in values]


def _name(value: Any, ends: Sequence[float] | None, names: Sequence[str]) -> str:
    number = _number(value) if ends is not None else None
    if ends is None or number is None:
        return value if isinstance(value, str) else number_name(value)
    place = int(np.searchsorted(ends, number, side="left"))
    if place == 0:
        return f"up to {names[0]}"
    return f"above {names[-1]}" if place == len(ends) else f"{names[place - 1]} to {names[place]}"


def _number(value: Any) -> float | None:
    """Read what a column holds as a number: one text among them, in any split, makes texts of all."""
    try:
        number = float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _apart(ends: Sequence[float]) -> list[str]:
    """Write the ends of quarters, fractions with as few digits as tell them apart, six at least."""
    for digits in range(6, 17):
        names = [number_name(end) if float(end).is_integer() else f"{end:.{digits}g}" for end in ends]
        if len(set(names)) == len(ends):
            break
    return names


def training_slices(train: Dataset) -> dict[str, dict[str, Any]]:
    """Say of each column that is carried in the training split where its quarters end, and which slices there are."""
    found = {}
    for name in slice_columns(train):
        values = train[SLICE + name][:]
        ends = quartiles(values)
        found[name] = {"ends": ends, "training": sorted(set(name_slices(values, ends)))}
    return found


def sliced(dataset: Dataset, training: Mapping[str, Mapping[str, Any]]) -> dict[str, list[str]]:
    """Name the slices of each example, by column.

    Args:
        dataset: A split.
        training: What ``training_slices`` gave; of a column that is not in it the split has its own quarters.
    """
    found = {}
    for name in slice_columns(dataset):
        values = dataset[SLICE + name][:]
        ends = training[name]["ends"] if name in training else quartiles(values)
        found[name] = name_slices(values, ends)
    return found


def judge_slices(
    found: EvaluationResult,
    slices: Mapping[str, Sequence[str]],
    training: Mapping[str, Mapping[str, Any]],
    headline: Sequence[str],
    seed: int,
) -> dict[str, Any]:
    """Compute the leading metric, and how many are right, of each slice, and name the worst.

    Args:
        found: What the model said of the examples.
        slices: Of each column, the slice of each example.
        training: What ``training_slices`` gave; a column that is not in it has slices of which nobody knows whether
            the model was trained on them.
        headline: Names of the metrics, the leading one first.
        seed: Of the intervals.

    Returns:
        Of each column ``metric``, ``worst`` (None where fewer than two slices have enough examples), ``ends``,
        ``training`` and ``slices``: the worst first, those of too few examples last.
    """
    leading = next((name for name in headline if name != "loss"), None)
    names = list(dict.fromkeys(name for name in (leading, SHARES.get(found.target)) if name))
    return {
        column: _judge(found, np.asarray(values), training.get(column, {}), names, seed)
        for column, values in slices.items()
        if names
    }


def _judge(
    found: EvaluationResult, values: np.ndarray, training: Mapping[str, Any], names: list[str], seed: int
) -> dict[str, Any]:
    known = training.get("training")
    rows = []
    for value in sorted(set(values.tolist())):
        members = values == value
        scores, labels = found.scores[members], found.labels[members]
        groups = np.asarray(found.groups)[members].tolist() if found.groups is not None else None
        ends = intervals(
            *(names, found.target, scores, labels),
            seed=seed,
            thresholds=found.thresholds,
            groups=groups,
            settings=found.settings,
        )
        metrics = compute_metrics(names, found.target, scores, labels, found.thresholds, found.settings)
        rows.append(
            {
                "name": value,
                "examples": int(members.sum()),
                "in_training": None if known is None else value in known,
                "enough": bool(members.sum() >= ENOUGH),
                **({} if groups is None else {"groups": len(set(groups))}),
                "metrics": without_nan(metrics),
                "intervals": {name: list(each) if each else None for name, each in ends.items()},
            }
        )
    sign = 1 if greater_is_better(names[0]) else -1

    def badness(row: Mapping[str, Any]) -> tuple[bool, float]:
        value = row["metrics"][names[0]]
        return not row["enough"], math.inf if value is None else sign * value

    rows.sort(key=badness)
    judged = [row for row in rows if row["enough"] and row["metrics"][names[0]] is not None]
    return {
        "metric": names[0],
        "worst": judged[0]["name"] if len(judged) > 1 else None,
        "ends": training.get("ends"),
        "training": known,
        "slices": rows,
    }
