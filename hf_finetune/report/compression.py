"""What pruning and distillation have gained and cost, as tables."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["SizeTable", "size_tables"]

COUNTS = {
    "parameters": "parameters",
    "nonzero_parameters": "parameters that are not 0",
    "bytes": "bytes of weights",
}


@dataclass(frozen=True)
class SizeTable:
    """Two models side by side.

    Attributes:
        title: What made the second one of the first, or beside it.
        columns: What the two are: before and after, or teacher and student.
        rows: What was measured, with the two values, written out.
    """

    title: str
    columns: tuple[str, str]
    rows: tuple[tuple[str, str, str], ...]


def size_tables(metrics: Mapping[str, Any]) -> list[SizeTable]:
    """Make the tables of a run.

    Args:
        metrics: The content of ``metrics.json``.
    """
    tables = []
    if pruned := metrics.get("compression"):
        title = f"Stage {pruned['stage']}, {pruned['method']} pruning: the model before it, and at the end of the run"
        tables.append(SizeTable(title, ("before", "after"), _rows(pruned, "before", "after")))
    if taught := metrics.get("distillation"):
        title = f"Stage {taught['stage']}: the teacher, and what learned from it"
        tables.append(SizeTable(title, ("teacher", "student"), _rows(taught, "teacher", "student")))
    return tables


def _rows(found: Mapping[str, Any], one: str, other: str) -> tuple[tuple[str, str, str], ...]:
    first, second = found[one], found[other]
    rows = [
        (f"test {name}", _number(first["metrics"].get(name), 4), _number(second["metrics"].get(name), 4))
        for name in second["metrics"]
    ]
    dense = all(each["nonzero_parameters"] == each["parameters"] for each in (first, second))
    for field, words in COUNTS.items():
        if field != "nonzero_parameters" or not dense:
            rows.append((words, f"{first[field]:,}", f"{second[field]:,}"))
    macs = f"MACs (multiply and add) for {found['example']}"
    rows.append((macs, f"{first['macs']:,}", f"{second['macs']:,}"))
    one, other = (_number(each["milliseconds"], 2) for each in (first, second))
    rows.append(("ms for that on the CPU", one, other))
    return tuple(rows)


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
