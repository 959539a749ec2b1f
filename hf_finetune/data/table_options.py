"""Formats of tables, how their text is to be read, and what reading one file results in."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from hf_finetune.errors import Problem

__all__ = [
    "NO_OPTIONS",
    "TABLE_KINDS",
    "TABLE_SUFFIXES",
    "FileTable",
    "TableOptions",
    "table_format",
    "table_stem",
]

TABLE_SUFFIXES: Mapping[str, str] = {
    ".csv": "csv",
    ".tsv": "csv",
    ".json": "json",
    ".jsonl": "json",
    ".ndjson": "json",
    ".parquet": "parquet",
    ".xlsx": "xlsx",
}
"""Format by the last suffix. Text formats may have ``.gz`` after it."""
COMPRESSED = ".gz"


@dataclass(frozen=True)
class TableOptions:
    """How text files are to be read. None recognizes it where that is certain.

    Attributes:
        encoding: Encoding, by a name that Python knows.
        separator: Character between the cells of a row.
        decimal: Decimal mark of numbers, ``.`` or ``,``.
        fallback: Whether encoding and separator count only where they are not recognized, because they are those
            of other files (the ones of training) than the one to read.
    """

    encoding: str | None = None
    separator: str | None = None
    decimal: str | None = None
    fallback: bool = False


NO_OPTIONS = TableOptions()
TABLE_KINDS = "csv, tsv, json, jsonl, parquet or xlsx"
"""The formats, for messages."""


@dataclass(frozen=True)
class FileTable:
    """One file as a table.

    Attributes:
        table: Its rows. All columns are strings if ``is_text``.
        is_text: Whether the file does not state the types of its values.
        notes: What was recognized and left aside, a sentence each.
        doubts: Problems of single columns, which count only if the column is used.
        header_doubt: Why the header may be a row of data; None if there is no sign of that.
    """

    table: pa.Table
    is_text: bool
    notes: tuple[str, ...] = ()
    doubts: Mapping[str, Problem] = field(default_factory=dict)
    header_doubt: Problem | None = None


def table_format(file: str | Path) -> str | None:
    """Return ``csv``, ``json``, ``parquet`` or ``xlsx`` by the suffixes of a file's name; None for any other."""
    suffixes = [suffix.lower() for suffix in Path(file).suffixes]
    if suffixes and suffixes[-1] == COMPRESSED:
        inner = TABLE_SUFFIXES.get(suffixes[-2]) if len(suffixes) > 1 else None
        return inner if inner in ("csv", "json") else None
    return TABLE_SUFFIXES.get(suffixes[-1]) if suffixes else None


def table_stem(file: str | Path) -> str:
    """Return the name of a table's file without the suffixes of its format."""
    path = Path(file)
    return Path(path.stem).stem if path.suffix.lower() == COMPRESSED else path.stem
