"""Columns of pictures in folders, from files called metadata next to them, as ``imagefolder`` of datasets has it."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
from datasets import Dataset, DatasetInfo, Features, Image
from datasets.table import InMemoryTable
from pyarrow import parquet

from hf_finetune.data.formatting import MOST_SHOWN, quoted
from hf_finetune.data.image_paths import PictureFinder, check_paths
from hf_finetune.data.table_files import read_file
from hf_finetune.data.table_options import NO_OPTIONS, FileTable, TableOptions, table_format, table_stem
from hf_finetune.errors import InputError, Problem

__all__ = ["METADATA", "Metadata", "add_metadata", "is_metadata", "metadata_examples", "read_metadata"]

METADATA = "metadata"
"""What such a file is called, before its ending."""
FILE = "file_name"
PLAIN = {pa.string(): str, pa.float64(): float}
"""What makes one kind of values of those of several files."""


@dataclass(frozen=True)
class Metadata:
    """The rows of metadata files.

    Attributes:
        files: The files.
        rows: The columns of each picture, by its path.
        fields: The types that each column has, by its name, without the column of file names.
        is_text: Whether a file does not state the types of its values, which are strings.
        notes: How the files and the names in them were understood.
    """

    files: tuple[Path, ...] = ()
    rows: Mapping[Path, Mapping[str, Any]] = field(default_factory=dict)
    fields: Mapping[str, frozenset[pa.DataType]] = field(default_factory=dict)
    is_text: bool = False
    notes: tuple[str, ...] = ()

    def row(self, path: Path) -> Mapping[str, Any]:
        """Return the columns of a picture; nothing if no file names it."""
        return self.rows.get(_plain(path), {})


def is_metadata(path: Path) -> bool:
    """Return whether a file is called metadata and has the ending of a table."""
    return table_format(path) is not None and table_stem(path) == METADATA


def read_metadata(
    files: Iterable[Path], suffixes: frozenset[str], options: TableOptions = NO_OPTIONS
) -> Metadata:
    """Read metadata files; of a picture that several of them name, the last one counts for each column.

    Args:
        files: The files, whose pictures lie next to them or below.
        suffixes: Endings of pictures, in lower case.
        options: How their text is to be read.

    Raises:
        InputError: If a file cannot be read, or names no files.
    """
    rows: dict[Path, dict[str, Any]] = {}
    fields: dict[str, frozenset[pa.DataType]] = {}
    notes: list[str] = []
    is_text = False
    files = tuple(dict.fromkeys(files))
    for file in files:
        read = _read(file, options)
        table = read.table
        is_text = is_text or read.is_text
        notes += read.notes
        names = [None if name is None else str(name) for name in table[FILE].to_pylist()]
        check_paths(names, str(file))
        if None in names:
            rule = f"must have a value of {FILE!r} in every row"
            raise InputError(Problem(str(file), rule, f"none in row {names.index(None) + 1}"))
        finder = PictureFinder(file.parent, suffixes)
        paths = [finder.find(str(name)) for name in names]
        finder.raise_problems()
        notes += finder.notes()
        for name in sorted(set(table.column_names) - {FILE}):
            fields[name] = fields.get(name, frozenset()) | {table.schema.field(name).type}
        for path, row in zip(paths, table.drop_columns([FILE]).to_pylist(), strict=True):
            rows.setdefault(_plain(path), {}).update(row)
    return Metadata(files, rows, fields, is_text, tuple(notes))


def add_metadata(pictures: Dataset, metadata: Metadata, replaced: str | None = None) -> Dataset:
    """Add the columns of metadata files to pictures; one that no file names has None in all of them.

    Args:
        pictures: With the column ``image`` and perhaps ``label``, which stay as they are.
        metadata: The rows of the files.
        replaced: The column that is taken from the files although the pictures have it.
    """
    paths = [each["path"] for each in pictures.cast_column("image", Image(decode=False))["image"][:]]
    found = [metadata.row(Path(path)) for path in paths]
    if replaced in metadata.fields and replaced in pictures.column_names:
        pictures = pictures.remove_columns([replaced])
    # datasets 5.2 cannot select the image column from what its own add_column gives
    table, features = pictures.with_format("arrow")[:], dict(pictures.features)
    for name, kinds in sorted(metadata.fields.items()):
        if name not in pictures.column_names:
            values = [row.get(name) for row in found]
            kind = _common(kinds)
            if plain := PLAIN.get(kind):
                values = [None if value is None else plain(value) for value in values]
            table = table.append_column(name, pa.array(values, kind))
            features |= Features.from_arrow_schema(pa.schema([(name, kind)]))
    return Dataset(InMemoryTable(table), info=DatasetInfo(features=Features(features)))


def metadata_examples(
    metadata: Metadata, folder: Path, pictures: Iterable[Path]
) -> tuple[list[Path], list[str]]:
    """Return the pictures of a split that metadata files list, in their order, and notes on the others.

    Args:
        metadata: The rows of the files.
        folder: The split's folder.
        pictures: All pictures in it.

    Raises:
        InputError: If the files have no column but the names of files.
    """
    if not metadata.fields:
        rule = f"must have a column with the labels besides {FILE!r}"
        raise InputError(Problem(quoted(map(str, metadata.files)), rule, "no other column"))
    listed = [path for path in metadata.rows if path.is_relative_to(_plain(folder))]
    if not listed:
        rule, value = f"must list pictures of {str(folder)!r}", "none of them"
        raise InputError(Problem(quoted(map(str, metadata.files)), rule, value))
    left = [path for path in pictures if _plain(path) not in metadata.rows]
    shown = quoted(path.relative_to(folder).as_posix() for path in left)
    return listed, [
        f"{folder.name}: pictures that no metadata file lists were not read: {shown}."
    ] if left else []


def _plain(path: Path) -> Path:
    """Return a path without ``..``; links stay, for a picture is named by the path that leads to it."""
    return Path(os.path.normpath(path))


def _common(kinds: Iterable[pa.DataType]) -> pa.DataType:
    """Return the type of a column that several files have: theirs, floats for numbers of two kinds, else strings."""
    found = set(kinds) - {pa.null()} or {pa.string()}
    if len(found) == 1:
        return next(iter(found))
    numbers = all(pa.types.is_integer(kind) or pa.types.is_floating(kind) for kind in found)
    return pa.float64() if numbers else pa.string()


def _read(file: Path, options: TableOptions) -> FileTable:
    try:
        is_parquet = table_format(file) == "parquet"
        read = FileTable(parquet.read_table(file), False) if is_parquet else read_file(file, options)
    except (OSError, pa.ArrowInvalid) as error:
        first = next(iter(str(error).splitlines()), "")
        raise InputError(Problem(str(file), "must be readable as a table", first.rstrip("."))) from error
    except InputError as error:
        raise InputError(replace(problem, place=str(file)) for problem in error.problems) from error
    if FILE not in read.table.column_names:
        found = quoted(read.table.column_names, MOST_SHOWN)
        rule = f"must have the column {FILE!r}, which says whose row it is"
        raise InputError(Problem(str(file), rule, found))
    return read
