"""Purchases of the customers of CDNOW from January 1997 to June 1998, from the package lifetimes."""

import csv
import zipfile
from pathlib import Path

from benchmarks.inputs import ROOT
from benchmarks.small.sets import Archive, fetch

__all__ = ["make", "read_purchases"]

FOLDER = ROOT / "assets" / "small"
LIFETIMES = Archive(
    "lifetimes",
    "0.11.3",
    "Lifetimes-0.11.3-py3-none-any.whl",
    "261e3dc89977c2b60767ca6728aaa29d429de0c814635070a749c36555895da8",
)
PURCHASES = "lifetimes/datasets/CDNOW_master.txt"


def read_purchases(text: str) -> list[tuple[str, str, str]]:
    """Return customer, date in ISO 8601, and amount in dollars of each purchase.

    Args:
        text: Lines with customer, date (YYYYMMDD), number of CDs and dollars, after a header.
    """
    rows = [line.split() for line in text.splitlines()[1:] if line.strip()]
    return [(customer, f"{date[:4]}-{date[4:6]}-{date[6:]}", dollars) for customer, date, _, dollars in rows]


def make(folder: Path = FOLDER) -> Path:
    """Return a table of the purchases with the columns ``customer``, ``date`` and ``dollars``.

    Args:
        folder: Folder of the package and of the table.

    Raises:
        AssetError: If the package cannot be downloaded.
    """
    place = folder / "cdnow.csv"
    (folder / "packages").mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(fetch(LIFETIMES, folder / "packages")) as wheel:
        rows = read_purchases(wheel.read(PURCHASES).decode("ascii"))
    with place.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("customer", "date", "dollars"), *rows])
    return place
