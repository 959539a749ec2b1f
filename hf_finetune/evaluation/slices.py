"""Metrics of slices: groups of examples with the same value, or in the same quarter, of a column of the data."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from datasets import Dataset

from hf_finetune.data.slices import MAX_NUMERIC_VALUES, SLICE, number_name, slice_columns
from hf_finetune.evaluation.evaluate import EvaluationResult
from hf_finetune.evaluation.intervals import intervals
from hf_finetune.evaluation.metrics import compute_metrics, sign_of, without_nan
from hf_finetune.targets import TARGETS

__all__ = [
    "MIN_EXAMPLES",
    "MISSING",
    "evaluate_slices",
    "name_slices",
    "quartiles",
    "sliced",
    "training_slices",
]

MISSING = "(missing)"
MIN_EXAMPLES = 20
"""Minimum number of examples of a slice that is ranked; with fewer, the interval is too wide to be useful."""


def quartiles(values: Sequence[Any]) -> list[float] | None:
    """Compute the quartiles of a numeric column with many distinct values.

    Args:
        values: Values of the training examples; None for a missing value.

    Returns:
        The distinct quartiles in ascending order, at most three; None for a column of texts or of few distinct values.
    """
    known = [value for value in values if value is not None]
    if any(isinstance(value, str) for value in known) or len(set(known)) <= MAX_NUMERIC_VALUES:
        return None
    return [float(end) for end in np.unique(np.quantile(known, (0.25, 0.5, 0.75)))]


def name_slices(values: Sequence[Any], ends: Sequence[float] | None) -> list[str]:
    """Return the slice of each value: the value itself, its quarter, or ``(missing)``.

    Args:
        values: Values of a column.
        ends: Quartiles; a value equal to one belongs to the quarter below it. None for a column without quarters.
    """
    names = _distinct_labels(ends) if ends is not None else []
    return [MISSING if value is None else _name(value, ends, names) for value in values]


def _name(value: Any, ends: Sequence[float] | None, names: Sequence[str]) -> str:
    number = _number(value) if ends is not None else None
    if ends is None or number is None:
        return value if isinstance(value, str) else number_name(value)
    quarter = int(np.searchsorted(ends, number, side="left"))
    if quarter == 0:
        return f"up to {names[0]}"
    return f"above {names[-1]}" if quarter == len(ends) else f"{names[quarter - 1]} to {names[quarter]}"


def _number(value: Any) -> float | None:
    """Convert a value to a finite number; None if that is impossible.

    Numbers may be stored as texts, because a single text in any split makes the whole column text.
    """
    try:
        number = float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _distinct_labels(ends: Sequence[float]) -> list[str]:
    """Format quartiles with the fewest digits that keep them distinct, but at least six for fractions."""
    for digits in range(6, 17):
        names = [number_name(end) if float(end).is_integer() else f"{end:.{digits}g}" for end in ends]
        if len(set(names)) == len(ends):
            break
    return names


def training_slices(train: Dataset) -> dict[str, dict[str, Any]]:
    """Return the quartiles (``ends``) and the slices (``training``) of the training split, by column.

    Args:
        train: Training split with its slice columns.
    """
    by_column = {}
    for name in slice_columns(train):
        values = train[SLICE + name][:]
        ends = quartiles(values)
        by_column[name] = {"ends": ends, "training": sorted(set(name_slices(values, ends)))}
    return by_column


def sliced(dataset: Dataset, training: Mapping[str, Mapping[str, Any]]) -> dict[str, list[str]]:
    """Return the slice of each example, by column.

    Args:
        dataset: A split of the data.
        training: Slices of the training split, as ``training_slices`` returns them. For a column that is missing in it,
            the quartiles of the split itself are used.
    """
    by_column = {}
    for name in slice_columns(dataset):
        values = dataset[SLICE + name][:]
        ends = training[name]["ends"] if name in training else quartiles(values)
        by_column[name] = name_slices(values, ends)
    return by_column


def evaluate_slices(
    result: EvaluationResult,
    slices: Mapping[str, Sequence[str]],
    training: Mapping[str, Mapping[str, Any]],
    metric_names: Sequence[str],
    seed: int,
) -> dict[str, Any]:
    """Compute the primary metric and the accuracy (or exact match) of each slice, and find the worst slice.

    Args:
        result: Evaluation result with the scores and labels of the examples.
        slices: Slice of each example, by column.
        training: Slices of the training split, as ``training_slices`` returns them. For a column that is missing in it,
            it is not known whether the model was trained on its slices.
        metric_names: Names of the metrics of the recipe, the primary one first.
        seed: Seed of the bootstrap intervals.

    Returns:
        A dictionary for each column: ``metric``, ``worst`` (None if fewer than two slices have enough examples),
        ``ends``, ``training`` and ``slices``, ordered from the worst to the best, those with too few examples last.
    """
    primary_metric = next((name for name in metric_names if name != "loss"), None)
    names = list(
        dict.fromkeys(name for name in (primary_metric, TARGETS[result.target].accuracy_metric) if name)
    )
    return {
        column: _evaluate_column(result, np.asarray(values), training.get(column, {}), names, seed)
        for column, values in slices.items()
        if names
    }


def _evaluate_column(
    result: EvaluationResult, values: np.ndarray, training: Mapping[str, Any], names: list[str], seed: int
) -> dict[str, Any]:
    known = training.get("training")
    rows = []
    for value in sorted(set(values.tolist())):
        members = values == value
        examples = result.examples[members]
        ends = intervals(names, examples, seed=seed)
        rows.append(
            {
                "name": value,
                "examples": int(members.sum()),
                "in_training": None if known is None else value in known,
                "enough": bool(members.sum() >= MIN_EXAMPLES),
                **({} if examples.groups is None else {"groups": len(np.unique(examples.groups))}),
                "metrics": without_nan(compute_metrics(names, examples)),
                "intervals": {name: list(interval) if interval else None for name, interval in ends.items()},
            }
        )
    sign = sign_of(names[0])

    def sort_key(row: Mapping[str, Any]) -> tuple[bool, float]:
        value = row["metrics"][names[0]]
        return not row["enough"], math.inf if value is None else sign * value

    rows.sort(key=sort_key)
    ranked = [row for row in rows if row["enough"] and row["metrics"][names[0]] is not None]
    return {
        "metric": names[0],
        "worst": ranked[0]["name"] if len(ranked) > 1 else None,
        "ends": training.get("ends"),
        "training": known,
        "slices": rows,
    }
