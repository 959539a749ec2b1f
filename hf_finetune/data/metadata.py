"""Columns for images in folders, from metadata files next to them, as in the ``imagefolder`` builder of datasets."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
from datasets import Dataset, DatasetInfo, Features
from datasets.table import InMemoryTable
from pyarrow import parquet

from hf_finetune.data.file_paths import FileFinder, check_paths
from hf_finetune.data.file_table import FileTable
from hf_finetune.data.table_files import read_file
from hf_finetune.data.table_options import NO_OPTIONS, TableOptions, table_format, table_stem
from hf_finetune.errors import MAX_LISTED_PROBLEMS, InputError, Problem, join_quoted
from hf_finetune.tasks import Modality

__all__ = ["Metadata", "add_metadata", "is_metadata", "metadata_examples", "read_metadata"]

FILE_COLUMN = "file_name"
PYTHON_TYPES = {pa.string(): str, pa.float64(): float}
"""Conversion of values to the common type of a column that several files have with different types."""


@dataclass(frozen=True)
class Metadata:
    """Rows of metadata files.

    Attributes:
        files: Paths of the files.
        rows: Column values of each image, by its path.
        fields: Types of each column over all files, by column name, without the column of file names.
        is_text: Whether a file states no types for its values, which are then strings.
        notes: Messages to the user on how files and file names were interpreted.
    """

    files: tuple[Path, ...] = ()
    rows: Mapping[Path, Mapping[str, Any]] = field(default_factory=dict)
    fields: Mapping[str, frozenset[pa.DataType]] = field(default_factory=dict)
    is_text: bool = False
    notes: tuple[str, ...] = ()

    def row(self, path: Path) -> Mapping[str, Any]:
        """Return the column values of an image; empty if no metadata file lists it."""
        return self.rows.get(_plain(path), {})


def is_metadata(path: Path) -> bool:
    """Return whether a file is named metadata and has the suffix of a table."""
    return table_format(path) is not None and table_stem(path) == "metadata"


def read_metadata(files: Iterable[Path], modality: Modality, options: TableOptions = NO_OPTIONS) -> Metadata:
    """Read metadata files; if several files list an image, the last one overrides the columns it has.

    Args:
        files: Metadata files, each in the folder of its images or in a folder above.
        modality: Kind of input.
        options: How to parse files that are text.

    Returns:
        Rows of all files, by image.

    Raises:
        InputError: If a file cannot be read or lacks the column ``file_name``, or if a file name is missing or cannot
            be resolved.
    """
    rows: dict[Path, dict[str, Any]] = {}
    fields: dict[str, frozenset[pa.DataType]] = {}
    notes: list[str] = []
    is_text = False
    files = tuple(dict.fromkeys(files))
    for file in files:
        file_table = _read(file, options)
        table = file_table.table
        is_text = is_text or file_table.is_text
        notes += file_table.notes
        names = [None if name is None else str(name) for name in table[FILE_COLUMN].to_pylist()]
        check_paths(names, str(file))
        if None in names:
            rule = f"must have a value of {FILE_COLUMN!r} in every row"
            raise InputError(Problem(str(file), rule, f"an empty cell in row {names.index(None) + 1}"))
        finder = FileFinder(file.parent, modality)
        paths = [finder.find(str(name)) for name in names]
        finder.raise_problems()
        notes += finder.notes()
        for name in sorted(set(table.column_names) - {FILE_COLUMN}):
            fields[name] = fields.get(name, frozenset()) | {table.schema.field(name).type}
        for path, row in zip(paths, table.drop_columns([FILE_COLUMN]).to_pylist(), strict=True):
            rows.setdefault(_plain(path), {}).update(row)
    return Metadata(files, rows, fields, is_text, tuple(notes))


def add_metadata(
    examples: Dataset, metadata: Metadata, modality: Modality, replaced: str | None = None
) -> Dataset:
    """Add the columns of metadata files to images; an image that no file lists gets None in all of them.

    Args:
        examples: Dataset with the main column and optionally ``label``, which are not changed.
        metadata: Rows of the metadata files.
        modality: Kind of input.
        replaced: Column of ``examples`` that the metadata column of the same name replaces.

    Returns:
        The examples with the additional columns.
    """
    name = modality.main_column
    stored = examples.cast_column(name, modality.features(decode=False)[name])
    paths = [file["path"] for file in stored[name][:]]
    rows = [metadata.row(Path(path)) for path in paths]
    if replaced in metadata.fields and replaced in examples.column_names:
        examples = examples.remove_columns([replaced])
    # datasets 5.2 cannot select the image column of a dataset that add_column returned
    table, features = examples.with_format("arrow")[:], dict(examples.features)
    for field_name, kinds in sorted(metadata.fields.items()):
        if field_name not in examples.column_names:
            values = [row.get(field_name) for row in rows]
            kind = _common(kinds)
            if plain := PYTHON_TYPES.get(kind):
                values = [None if value is None else plain(value) for value in values]
            table = table.append_column(field_name, pa.array(values, kind))
            features |= Features.from_arrow_schema(pa.schema([(field_name, kind)]))
    return Dataset(InMemoryTable(table), info=DatasetInfo(features=Features(features)))


def metadata_examples(
    metadata: Metadata, folder: Path, pictures: Iterable[Path]
) -> tuple[list[Path], list[str]]:
    """Return the images of a split that metadata files list, in the order of the files, and notes on unlisted images.

    Args:
        metadata: Rows of the metadata files.
        folder: Folder of the split.
        pictures: All images in the folder.

    Raises:
        InputError: If the files have no column besides the file names, or list no image in the folder.
    """
    if not metadata.fields:
        rule = f"must have a label column in addition to {FILE_COLUMN!r}"
        raise InputError(Problem(join_quoted(map(str, metadata.files)), rule, "no other column"))
    listed = [path for path in metadata.rows if path.is_relative_to(_plain(folder))]
    if not listed:
        rule = f"must list at least one image of {str(folder)!r}"
        raise InputError(Problem(join_quoted(map(str, metadata.files)), rule))
    unlisted = [path for path in pictures if _plain(path) not in metadata.rows]
    shown = join_quoted(path.relative_to(folder).as_posix() for path in unlisted)
    return listed, [
        f"{folder.name}: images that no metadata file lists were not read: {shown}."
    ] if unlisted else []


def _plain(path: Path) -> Path:
    """Return a path without ``..``; symbolic links are not resolved, as an image is identified by the given path."""
    return Path(os.path.normpath(path))


def _common(kinds: Iterable[pa.DataType]) -> pa.DataType:
    """Return the common type of a column: its only type, floats for mixed number types, else strings."""
    types = set(kinds) - {pa.null()} or {pa.string()}
    if len(types) == 1:
        return next(iter(types))
    numbers = all(pa.types.is_integer(kind) or pa.types.is_floating(kind) for kind in types)
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
    if FILE_COLUMN not in read.table.column_names:
        columns = join_quoted(read.table.column_names, MAX_LISTED_PROBLEMS)
        rule = f"must have the column {FILE_COLUMN!r}, with the file of each row"
        raise InputError(Problem(str(file), rule, columns))
    return read
