"""Reading of table files of any supported format, as one table per split."""

import errno
import glob
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
from datasets import Dataset, load_dataset_builder
from datasets.exceptions import DatasetsError
from datasets.table import InMemoryTable

from hf_finetune.data.csv_files import read_csv
from hf_finetune.data.excel_files import read_excel
from hf_finetune.data.file_table import FileTable
from hf_finetune.data.json_files import read_json
from hf_finetune.data.table_options import NO_OPTIONS, TableOptions, table_format
from hf_finetune.errors import InputError, Problem, join_quoted

__all__ = ["SplitTable", "read_error", "read_file", "read_once", "read_split"]

_Kept = dict[tuple[Path, TableOptions], FileTable]
_KEPT: ContextVar[_Kept | None] = ContextVar("_KEPT", default=None)


@dataclass(frozen=True)
class SplitTable:
    """Files of one split as a dataset.

    Attributes:
        dataset: Rows of all files.
        is_text: Whether the files state no types for their values.
        notes: Messages to the user on what was detected and ignored, one sentence each.
        column_problems: Problems of single columns, by column name; reported only if the column is used.
        header_problem: Problem of a header that looks like a row of data; None if it does not.
    """

    dataset: Dataset
    is_text: bool
    notes: tuple[str, ...] = ()
    column_problems: Mapping[str, Problem] = field(default_factory=dict)
    header_problem: Problem | None = None


@contextmanager
def read_once() -> Iterator[None]:
    """Keep all tables that ``read_file`` returns until the block ends, so that each file is read once.

    Yields:
        Nothing.
    """
    token = _KEPT.set({})
    try:
        yield
    finally:
        _KEPT.reset(token)


def read_file(file: Path, options: TableOptions = NO_OPTIONS) -> FileTable:
    """Read one csv, tsv, json, jsonl or xlsx file into memory; within ``read_once``, only the first time.

    Args:
        file: File to read; text formats may be compressed with gzip.
        options: How to parse text formats.

    Returns:
        Table of the file, with notes and possible problems.

    Raises:
        InputError: If the file cannot be read in the format of its suffix.
    """
    kept = _KEPT.get()
    if kept is None:
        return _read_file(file, options)
    if (file, options) not in kept:
        kept[file, options] = _read_file(file, options)
    return kept[file, options]


def _read_file(file: Path, options: TableOptions) -> FileTable:
    kind = table_format(file)
    try:
        if kind == "csv":
            return read_csv(file, options)
        return read_json(file, options) if kind == "json" else read_excel(file)
    except OSError as error:
        raise read_error(error, file.name, f"must be readable as {kind}") from error


def read_split(split: str, files: Sequence[Path], options: TableOptions = NO_OPTIONS) -> SplitTable:
    """Read the files of a split and concatenate their rows.

    Args:
        split: Name of the split.
        files: Files of the split, all of the same format.
        options: How to parse text formats.

    Returns:
        Dataset of all files, with notes and possible problems.

    Raises:
        InputError: If a file cannot be read or has other columns than the first, or if there are no rows.
    """
    if table_format(files[0]) == "parquet":
        return SplitTable(_read_parquet(split, files), False)
    tables = [read_file(file, options) for file in files]
    names = tables[0].table.column_names
    rule, repair = f"must have the same columns as {files[0].name}", f"Expected {join_quoted(names)}."
    problems = [
        Problem(file.name, rule, join_quoted(read.table.column_names), repair)
        for file, read in zip(files, tables, strict=True)
        if set(read.table.column_names) != set(names)
    ]
    if problems:
        raise InputError(problems)
    table = _concatenated([read.table.select(names) for read in tables])
    if len(table) == 0:
        raise InputError(Problem(f"The {split} split", "must not be empty"))
    return SplitTable(
        Dataset(InMemoryTable(table)),
        tables[0].is_text,
        tuple(note for read in tables for note in read.notes),
        {name: problem for read in tables for name, problem in read.column_problems.items()},
        next((read.header_problem for read in tables if read.header_problem), None),
    )


def _concatenated(tables: Sequence[pa.Table]) -> pa.Table:
    try:
        return pa.concat_tables(tables, promote_options="permissive")
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        types = {
            name: list(dict.fromkeys(str(table.field(name).type) for table in tables))
            for name in tables[0].column_names
        }
        mixed = ", ".join(
            f"{name!r} of types {' and '.join(kinds)}" for name, kinds in types.items() if len(kinds) > 1
        )
        rule = "must have columns of the same types"
        raise InputError(Problem("The files of a split", rule, mixed)) from error


def _read_parquet(split: str, files: Sequence[Path]) -> Dataset:
    place = ", ".join(file.name for file in files)
    try:
        paths = [glob.escape(str(file)) for file in files]
        builder = load_dataset_builder("parquet", data_files={split: paths})
        builder.download_and_prepare()
        if builder.info.splits[split].num_examples > 0:  # as_dataset refuses an empty split
            return builder.as_dataset(split)
    except (DatasetsError, OSError, ValueError) as error:
        raise read_error(error, place, "must be readable as parquet") from error
    raise InputError(Problem(f"The {split} split", "must not be empty"))


def read_error(error: Exception, place: str, rule: str, repair: str = "") -> InputError:
    """Return an InputError for an exception of a reader. A full disk is not an input error: its OSError is raised.

    Args:
        error: Exception of the reader.
        place: Location of the problem, such as the file name.
        rule: Violated rule of the problem.
        repair: Fix; empty if the rule is enough.
    """
    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    if isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT):
        raise cause
    first_line = next(iter(str(cause).strip().splitlines()), "")
    return InputError(Problem(place, rule, f"{type(cause).__name__}: {first_line}".rstrip(".: "), repair))
