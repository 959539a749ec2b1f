"""Formats of table files, and options for parsing text formats."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hf_finetune.recipe.modality_fields import DataFields

__all__ = [
    "NO_OPTIONS",
    "TABLE_KINDS",
    "TABLE_SUFFIXES",
    "TableOptions",
    "table_format",
    "table_options",
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
"""Format by the last suffix, which may be followed by ``.gz`` for text formats."""
COMPRESSED = ".gz"


@dataclass(frozen=True)
class TableOptions:
    """Options for parsing text files. An option that is None is detected where that is unambiguous.

    Attributes:
        encoding: Name of a Python codec.
        separator: Character between the cells of a row.
        decimal: Decimal mark of numbers, ``.`` or ``,``.
        fallback: Whether encoding and separator are used only if detection fails, because they were set for other files
            (those of training).
    """

    encoding: str | None = None
    separator: str | None = None
    decimal: str | None = None
    fallback: bool = False


NO_OPTIONS = TableOptions()
TABLE_KINDS = "csv, tsv, json, jsonl, parquet or xlsx"
"""Supported formats, for messages."""


def table_format(file: str | Path) -> str | None:
    """Return the format by a file's suffixes (``csv``, ``json``, ``parquet`` or ``xlsx``); None if not supported."""
    suffixes = [suffix.lower() for suffix in Path(file).suffixes]
    if suffixes and suffixes[-1] == COMPRESSED:
        inner = TABLE_SUFFIXES.get(suffixes[-2]) if len(suffixes) > 1 else None
        return inner if inner in ("csv", "json") else None
    return TABLE_SUFFIXES.get(suffixes[-1]) if suffixes else None


def table_stem(file: str | Path) -> str:
    """Return the name of a table file without the suffixes of its format."""
    path = Path(file)
    return Path(path.stem).stem if path.suffix.lower() == COMPRESSED else path.stem


def table_options(spec: "DataFields") -> TableOptions:
    """Return the text parsing options of a recipe's data as fallbacks, for other files that probably have them, too."""
    return TableOptions(spec.encoding, spec.separator, spec.decimal, fallback=True)
