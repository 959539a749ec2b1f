"""Metrics by slice for the report, the model card and the command line: tables, and a sentence on the worst slice."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hf_finetune.evaluation.metrics import greater_is_better

__all__ = ["SliceTable", "slice_tables", "slices_verdict"]


@dataclass(frozen=True)
class SliceTable:
    """Table of the slices of a column.

    Attributes:
        column: Name of the column.
        metrics: Names of the metrics, the primary metric first.
        rows: Slices, each with name, number of examples, metrics, intervals, and notes (worst slice, not in the
            training split, too few examples).
        bars: Whether the primary metric is in [0, 1] for all slices, so that bars can show it.
        verdict: Sentence on the worst slice.
    """

    column: str
    metrics: tuple[str, ...]
    rows: tuple[Mapping[str, Any], ...]
    bars: bool
    verdict: str


def slice_tables(slices_by_column: Mapping[str, Any]) -> list[SliceTable]:
    """Return a table for each column that the test split was sliced by.

    Args:
        slices_by_column: The ``slices`` section of ``metrics.json``.
    """
    return [_table(column, content) for column, content in slices_by_column.items()]


def _table(column: str, content: Mapping[str, Any]) -> SliceTable:
    leading, rows = content["metric"], content["slices"]
    bounds = [
        value for row in rows for value in (row["metrics"][leading], *(row["intervals"][leading] or ()))
    ]
    bars = greater_is_better(leading) and all(value is not None and 0 <= value <= 1 for value in bounds)
    return SliceTable(
        column,
        tuple(rows[0]["metrics"]) if rows else (leading,),
        tuple({**row, "notes": _notes(row, content["worst"])} for row in rows),
        bars,
        _sentence(column, content),
    )


def _notes(row: Mapping[str, Any], worst: str | None) -> list[str]:
    conditions = {
        "worst": row["name"] == worst,
        "not in training": row["in_training"] is False,
        "too few examples to compare": not row["enough"],
    }
    return [words for words, holds in conditions.items() if holds]


def slices_verdict(metrics: Mapping[str, Any]) -> list[str]:
    """Return a sentence on the worst slice of each column."""
    return [_sentence(column, content) for column, content in metrics.get("slices", {}).items()]


def _sentence(column: str, content: Mapping[str, Any]) -> str:
    name, rows = content["metric"], content["slices"]
    if content["worst"] is None:
        return f"By {column}, fewer than two slices have enough examples to be compared."
    row = next(candidate for candidate in rows if candidate["name"] == content["worst"])
    ends = row["intervals"][name]
    interval_text = f"95 % confidence interval {ends[0]:.3f} to {ends[1]:.3f}, " if ends else ""
    extreme = "lowest" if greater_is_better(name) else "highest"
    unseen = "; it does not occur in training" if row["in_training"] is False else ""
    grouped = f" in {row['groups']} groups" if "groups" in row else ""
    best = [other for other in rows if other["enough"] and other["metrics"][name] is not None][-1]
    chance_note = " The difference may be due to chance." if _may_be_chance(row, best, name) else ""
    return (
        f"By {column}, the {name} is {extreme} for {row['name']}: {row['metrics'][name]:.3f} "
        f"({interval_text}{row['examples']:,} examples{grouped}{unseen}), compared with {best['metrics'][name]:.3f} "
        f"for {best['name']}.{chance_note}"
    )


def _may_be_chance(worst: Mapping[str, Any], best: Mapping[str, Any], name: str) -> bool:
    """Return whether the 95 % interval of the difference between two slices, computed from theirs, includes 0.

    Source: Zou & Donner 2008, Construction of confidence limits about effect measures (MOVER).
    """
    if not (worst["intervals"][name] and best["intervals"][name]):
        return False
    great, small = (best, worst) if greater_is_better(name) else (worst, best)
    greatest, smallest = great["metrics"][name], small["metrics"][name]
    below, above = greatest - great["intervals"][name][0], small["intervals"][name][1] - smallest
    return bool(greatest - smallest <= math.hypot(below, above))
