"""Columns for the pictures of class folders, from files called metadata beside them, as ``imagefolder`` has it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
from datasets import Dataset, DatasetInfo, Features, Image
from datasets.table import InMemoryTable
from pyarrow import csv, json, parquet

from hf_finetune.errors import InputError, Problem

__all__ = ["METADATA", "add_metadata"]

METADATA = "metadata"
"""What such a file is called, before its ending."""
FILE = "file_name"
READERS = {".csv": csv.read_csv, ".jsonl": json.read_json, ".parquet": parquet.read_table}
PLAIN = {pa.string(): str, pa.float64(): float}
"""What makes one kind of values of those of several files."""


def add_metadata(pictures: Dataset, folders: tuple[Path, ...]) -> Dataset:
    """Add the columns of metadata files to pictures; one that no file names has None in all of them.

    Args:
        pictures: With the columns ``image`` and ``label``, which stay as they are.
        folders: Where the class folders lie, and where these lie; the files may lie there or in a class folder.

    Raises:
        InputError: If a file cannot be read, or names no files.
    """
    rows: dict[Path, Mapping[str, Any]] = {}
    fields: dict[str, set[pa.DataType]] = {}
    beside = [path for folder in dict.fromkeys(folders) for path in sorted(folder.glob(f"{METADATA}.*"))]
    for file in [*beside, *sorted(folders[0].glob(f"*/{METADATA}.*"))]:
        if file.suffix in READERS:
            table = _read(file)
            for name in set(table.column_names) - {FILE}:
                fields.setdefault(name, set()).add(table.schema.field(name).type)
            rows |= {(file.parent / str(row[FILE])).resolve(): row for row in table.to_pylist()}
    paths = [each["path"] for each in pictures.cast_column("image", Image(decode=False))["image"]]
    found = [rows.get(Path(path).resolve(), {}) for path in paths]
    # datasets 5.2 cannot select the image column from what its own add_column gives
    table, features = pictures.with_format("arrow")[:], dict(pictures.features)
    for name, kinds in sorted(fields.items()):
        if name not in pictures.column_names:
            values = [row.get(name) for row in found]
            kind = _common(kinds)
            if plain := PLAIN.get(kind):
                values = [None if value is None else plain(value) for value in values]
            table = table.append_column(name, pa.array(values, kind))
            features |= Features.from_arrow_schema(pa.schema([(name, kind)]))
    return Dataset(InMemoryTable(table), info=DatasetInfo(features=Features(features)))


def _common(kinds: set[pa.DataType]) -> pa.DataType:
    """Give the type of a column that several files have: theirs, numbers for numbers of two kinds, else texts."""
    found = kinds - {pa.null()} or {pa.string()}
    if len(found) == 1:
        return next(iter(found))
    numbers = all(pa.types.is_integer(kind) or pa.types.is_floating(kind) for kind in found)
    return pa.float64() if numbers else pa.string()


def _read(file: Path) -> pa.Table:
    try:
        table = READERS[file.suffix](file)
    except (OSError, pa.ArrowInvalid) as error:
        first = next(iter(str(error).splitlines()), "")
        raise InputError(Problem(str(file), "must be readable as a table", first.rstrip("."))) from error
    if FILE not in table.column_names:
        found = ", ".join(map(repr, table.column_names))
        rule = f"must have the column {FILE!r}, which says whose row it is"
        raise InputError(Problem(str(file), rule, found))
    return table
