"""Rows of measurements: stored as JSON, one per line, so that finished runs are not repeated."""

import json
from argparse import Namespace
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

__all__ = ["measure_and_render", "read_rows", "write_rows"]

Row = TypeVar("Row")


def read_rows(kind: type[Row], path: Path) -> list[Row]:
    """Read all rows; none if there is no file.

    Args:
        kind: Class of a row.
        path: File that ``write_rows`` wrote.
    """
    return [kind(**row) for row in json.loads(path.read_text(encoding="utf-8"))] if path.is_file() else []


def write_rows(rows: Iterable[Any], path: Path) -> None:
    """Write all rows, instances of a dataclass."""
    lines = ",\n".join(json.dumps(asdict(row)) for row in rows)
    path.write_text(f"[\n{lines}\n]\n", encoding="utf-8")


def measure_and_render(
    options: Namespace,
    rows: list[Row],
    measured: Iterable[Row],
    *,
    line: Callable[[Row], str],
    render: Callable[[list[Row]], str],
) -> None:
    """Store and print each row as soon as it is measured, and write the page.

    Args:
        options: Parsed arguments of ``benchmarks.options.measuring_parser``.
        rows: Rows of earlier runs, to which the new ones are added.
        measured: New rows, which are measured when they are read.
        line: Function that returns the line to print for a row.
        render: Function that returns the page.
    """
    if options.what == "measure":
        for row in measured:
            rows.append(row)
            write_rows(rows, options.results)
            print(line(row), flush=True)
    options.page.write_text(render(rows), encoding="utf-8")
