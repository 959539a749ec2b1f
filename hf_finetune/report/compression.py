"""Tables that compare model size, speed and test metrics before and after pruning or distillation."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hf_finetune.recipe.method_rules import DISTILLATION

__all__ = ["SizeTable", "size_tables"]

COUNTS = {"parameters": "parameters", "nonzero_parameters": "nonzero parameters", "bytes": "bytes of weights"}


@dataclass(frozen=True)
class SizeTable:
    """Comparison of two models.

    Attributes:
        title: Stage and method by which the second model was made.
        columns: Headings of the two models: before and after, or teacher and student.
        rows: Name of each quantity, and its formatted value for the first and the second model.
    """

    title: str
    columns: tuple[str, str]
    rows: tuple[tuple[str, str, str], ...]


def size_tables(metrics: Mapping[str, Any]) -> list[SizeTable]:
    """Return the size tables of a run: one for pruning and one for distillation, where the run did either.

    Args:
        metrics: Content of ``metrics.json``.
    """
    tables = []
    if pruned := metrics.get("compression"):
        title = (
            f"Stage {pruned['stage']}, {pruned['method']} pruning: the model before pruning and after the run"
        )
        tables.append(SizeTable(title, ("before", "after"), _rows(pruned, "before", "after")))
    if distillation := metrics.get(DISTILLATION.name):
        title = f"Stage {distillation['stage']}: teacher and student"
        tables.append(SizeTable(title, ("teacher", "student"), _rows(distillation, "teacher", "student")))
    return tables


def _rows(sizes: Mapping[str, Any], first_key: str, second_key: str) -> tuple[tuple[str, str, str], ...]:
    first, second = sizes[first_key], sizes[second_key]
    rows = [
        (f"test {name}", _number(first["metrics"].get(name), 4), _number(second["metrics"].get(name), 4))
        for name in second["metrics"]
    ]
    dense = all(model["nonzero_parameters"] == model["parameters"] for model in (first, second))
    for field, words in COUNTS.items():
        if field != "nonzero_parameters" or not dense:
            rows.append((words, f"{first[field]:,}", f"{second[field]:,}"))
    macs = f"MACs (multiply-accumulate operations) for {sizes['example']}"
    rows.append((macs, f"{first['macs']:,}", f"{second['macs']:,}"))
    first_ms, second_ms = (_number(model["milliseconds"], 2) for model in (first, second))
    rows.append(("CPU latency of one forward pass (ms)", first_ms, second_ms))
    return tuple(rows)


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
