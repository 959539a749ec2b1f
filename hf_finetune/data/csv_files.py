"""Reader of csv-like files as columns of strings; no row is dropped or truncated without a note."""

import csv
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from hf_finetune.data.column_types import all_numbers, is_number
from hf_finetune.data.csv_dialect import Dialect, QuoteError, open_records, recognize_dialect
from hf_finetune.data.file_table import FileTable
from hf_finetune.data.table_options import TableOptions
from hf_finetune.errors import InputError, Problem, counted, join_quoted, join_words

__all__ = ["column_names", "open_rows", "read_csv"]

_ROWS_AT_ONCE = 10_000
_MAX_RECORDED = 1000
"""Maximum number of rows that are recorded for a message."""
_UNNAMED = "Unnamed: "
"""Prefix of the name that pandas assigns to a column without one; its number follows."""


@dataclass
class _Rows:
    """Observations made while rows are read.

    Attributes:
        rows_with_extra_cells: Number of rows with empty cells beyond the columns.
        repeated: Line numbers of rows that repeat the header.
        trailing: Number of empty rows at the end.
        bad_rows: Line number and number of cells of rows with too many or too few cells; at most 1000.
        count: Number of rows with the right number of cells.
        multiline_rows: Line number and cells of rows with line breaks in their cells; at most 1000.
    """

    rows_with_extra_cells: int = 0
    repeated: list[int] = field(default_factory=list)
    trailing: int = 0
    bad_rows: list[tuple[int, int]] = field(default_factory=list)
    count: int = 0
    multiline_rows: list[tuple[int, list[str]]] = field(default_factory=list)


def _open(file: Path, options: TableOptions) -> tuple[Dialect, list[str], list[str]]:
    """Return the dialect of a file, the cells of its header, and notes."""
    dialect, notes = recognize_dialect(file, options)
    try:
        _, header = next(_skip_empty_rows(open_records(file, dialect)), (0, []))
    except QuoteError as error:
        raise InputError(_bad_quotes(file, error)) from error
    if not header:
        raise InputError(Problem(file.name, "must not be empty"))
    return dialect, header, notes


def open_rows(
    file: Path, options: TableOptions
) -> tuple[list[str], Iterator[tuple[int, list[str]]], list[str]]:
    """Open a csv-like file for reading row by row in constant memory, after a first pass that checks its quoting.

    Args:
        file: The file, optionally compressed with gzip.
        options: Known properties of the file; the others are detected.

    Returns:
        Column names; an iterator over the rows, each as the number of its first line, counted from 1, and its cells,
        which may be too many or too few; and notes.

    Raises:
        InputError: If the file cannot be decoded or split into cells.
    """
    dialect, header, notes = _open(file, options)
    try:
        for _ in open_records(file, dialect):
            pass
    except QuoteError as error:
        dialect, note = _fallback_dialect(file, dialect, len(header), error)
        notes.append(note)
    return column_names(header)[0], _rows_of(_body(file, dialect), header, _Rows()), notes


def read_csv(file: Path, options: TableOptions) -> FileTable:
    """Read a csv-like file.

    Args:
        file: The file, optionally compressed with gzip.
        options: Known properties of the file; the others are detected.

    Returns:
        Table of string columns; empty cells are null.

    Raises:
        InputError: If the file cannot be decoded or split into cells, or if a row has too many or too few cells.
    """
    dialect, header, notes = _open(file, options)
    try:
        chunks, rows = _read_rows(file, dialect, header)
    except QuoteError as error:
        dialect, note = _fallback_dialect(file, dialect, len(header), error)
        notes.append(note)
        chunks, rows = _read_rows(file, dialect, header)
    if rows.bad_rows:
        raise InputError(_wrong_lengths(file, dialect, header, rows))
    names, blank_names = column_names(header)
    columns = [
        pa.chunked_array([chunk[index] for chunk in chunks], pa.string()) for index in range(len(names))
    ]
    columns = [pc.if_else(pc.equal(column, ""), pa.scalar(None, pa.string()), column) for column in columns]
    # A separator at the end of each line results in a column without name and values.
    empty = {index for index in blank_names if columns[index].null_count == len(columns[index])}
    used = [index for index in range(len(names)) if index not in empty]
    if rows.rows_with_extra_cells or empty:
        notes.append(f"{file.name}: empty cells after the last column were ignored.")
    if rows.repeated:
        shown = join_words(map(str, rows.repeated))
        notes.append(f"{file.name}: rows that repeat the header were skipped: line {shown}.")
    if rows.trailing:
        notes.append(f"{file.name}: empty rows at the end were skipped: {rows.trailing}.")
    notes += _note_rows_in_cells(file, dialect, rows, columns)
    if any(name != name.strip() for name in header if name.strip()):
        notes.append(f"{file.name}: spaces around column names were removed.")
    if unnamed := [names[index] for index in used if index in blank_names]:
        notes.append(f"{file.name}: columns without a name are called {join_quoted(unnamed)}.")
    table = pa.table([columns[index] for index in used], names=[names[index] for index in used])
    return FileTable(
        table,
        True,
        tuple(notes),
        _doubled_names(file, header, table),
        _missing_header_problem(file, header, columns),
    )


def column_names(header: Sequence[str]) -> tuple[list[str], frozenset[int]]:
    """Return unique column names.

    Repeated names get a number as suffix, and missing names are numbered, as in pandas.

    Args:
        header: Cells of the header.

    Returns:
        Names without surrounding white space, and the indices of columns that had no name.
    """
    stripped = [name.strip().strip("\ufeff") for name in header]
    seen: Counter[str] = Counter()
    names = []
    for index, name in enumerate(stripped):
        plain = name or f"{_UNNAMED}{index}"
        names.append(f"{plain}.{seen[plain]}" if seen[plain] else plain)
        seen[plain] += 1
    return names, frozenset(index for index, name in enumerate(stripped) if not name)


def _skip_empty_rows(records: Iterable[tuple[int, list[str]]]) -> Iterator[tuple[int, list[str]]]:
    """Yield the records, without lines that are empty or contain only white space or the end-of-file mark of DOS."""
    for line, cells in records:
        if len(cells) > 1 or (cells and (cells[0] == "" or cells[0].strip(" \t\x1a"))):
            yield line, cells


def _body(file: Path, dialect: Dialect) -> Iterator[tuple[int, list[str]]]:
    """Yield the records after the header."""
    return islice(_skip_empty_rows(open_records(file, dialect)), 1, None)


def _read_rows(file: Path, dialect: Dialect, header: Sequence[str]) -> tuple[list[list[pa.Array]], _Rows]:
    rows = _Rows()
    valid_rows = _valid_rows(_rows_of(_body(file, dialect), header, rows), len(header), rows)
    chunks = []
    while batch := list(islice(valid_rows, _ROWS_AT_ONCE)):
        chunks.append([_strings(column) for column in zip(*batch, strict=True)])
    return chunks, rows


def _valid_rows(rows: Iterable[tuple[int, list[str]]], width: int, statistics: _Rows) -> Iterator[list[str]]:
    for line, cells in rows:
        if len(cells) == width:
            statistics.count += 1
            if len(statistics.multiline_rows) < _MAX_RECORDED and any("\n" in cell for cell in cells):
                statistics.multiline_rows.append((line, cells))
            yield cells
        elif len(statistics.bad_rows) < _MAX_RECORDED:
            statistics.bad_rows.append((line, len(cells)))


def _strings(values: Sequence[str]) -> pa.Array:
    array = pa.array(values, pa.string())
    return pa.concat_arrays(array.chunks) if isinstance(array, pa.ChunkedArray) else array


def _rows_of(
    records: Iterable[tuple[int, list[str]]], header: Sequence[str], statistics: _Rows
) -> Iterator[tuple[int, list[str]]]:
    """Yield the rows; record rows with extra cells, repeated headers and empty rows at the end in ``statistics``."""
    width = len(header)
    names = [name.strip("\ufeff") for name in header]
    blank: list[tuple[int, list[str]]] = []
    for line, cells in records:
        if len(cells) > width and not any(map(str.strip, cells[width:])):
            cells = cells[:width]
            statistics.rows_with_extra_cells += 1
        if width > 1 and not any(cells):
            blank.append((line, cells))
            continue
        if blank:
            yield from blank
            blank = []
        if width > 1 and cells[-1] == names[-1] and [cell.strip("\ufeff") for cell in cells] == names:
            statistics.repeated.append(line)
        else:
            yield line, cells
    statistics.trailing = len(blank)


def _fallback_dialect(file: Path, dialect: Dialect, width: int, error: QuoteError) -> tuple[Dialect, str]:
    """Return the first dialect with another quoting in which all rows have the width of the header, and a note."""
    plain = (
        f"{file.name}: quotes do not enclose whole cells (line {error.line}), so they are read as ordinary "
        "characters."
    )
    escaped = f"{file.name}: backslashes before quotes in cells were removed."
    stray = f"{file.name}: stray quotes at the start of cells were removed (line {error.line})."
    candidates: list[tuple[Dialect, str]] = [(replace(dialect, quotes="backslash"), escaped)]
    if dialect.separator == "\t":  # such files often have no quoting
        candidates.append((replace(dialect, quotes="none"), plain))
    if _stray_quotes_stay_in_their_lines(file, dialect):
        candidates.append((replace(dialect, quotes="lenient"), stray))
    candidates.append((replace(dialect, quotes="none"), plain))
    for candidate, note in candidates:
        try:
            if all(
                _fits(cells, width, candidate) for _, cells in _skip_empty_rows(open_records(file, candidate))
            ):
                return candidate, note
        except QuoteError:
            continue
    raise InputError(_bad_quotes(file, error)) from error


def _fits(cells: Sequence[str], width: int, dialect: Dialect) -> bool:
    """Return whether a row has as many cells as the header, and its cells are not enclosed in quotes that are ignored.

    Tab-separated cells may be enclosed in ignored quotes.
    """
    if len(cells) != width and (len(cells) < width or any(map(str.strip, cells[width:]))):
        return False
    ignored = dialect.quotes == "none" and dialect.separator != "\t"
    return not ignored or not any(
        len(cell) > 1 and cell[0] == cell[-1] == '"' for cell in map(str.strip, cells)
    )


def _stray_quotes_stay_in_their_lines(file: Path, dialect: Dialect) -> bool:
    """Return whether all records with a stray quote end in their own line; otherwise rows would be merged."""
    record_lines: list[str] = []
    lenient = replace(dialect, quotes="lenient")

    def lines() -> Iterator[str]:
        for _, cells in open_records(file, replace(dialect, quotes="none", separator="\x1f")):
            record_lines.append("".join(cells) + "\n")
            yield record_lines[-1]

    for _ in lenient.reader(lines()):
        if len(record_lines) > 1:
            try:
                list(dialect.reader(record_lines))
            except csv.Error:
                return False
        record_lines.clear()
    return True


def _bad_quotes(file: Path, error: QuoteError) -> Problem:
    repair = "Double each quote inside a quoted cell, and close each quoted cell."
    value = f"an invalid quote in the record that begins in line {error.line} ({error})"
    return Problem(file.name, "must have quotes only around whole cells", value, repair)


def _wrong_lengths(file: Path, dialect: Dialect, header: Sequence[str], rows: _Rows) -> Problem:
    width = len(header)
    lengths = {length for _, length in rows.bad_rows}
    shown = join_words(f"{counted(length, 'cell')} in line {line}" for line, length in rows.bad_rows)
    if len(rows.bad_rows) == _MAX_RECORDED:
        shown += ", among others"
    rule = f"must have {width} cells in each row, as in its header"
    if not rows.count and lengths == {width + 1}:
        repair = "If the first cell of each row is an index, add a name for that column to the header."
    elif max(lengths) > width:
        repair = (
            f"Quote each cell that contains {dialect.separator!r}, or set data.separator if another character "
            "separates the cells."
        )
    else:
        repair = (
            "Write a separator for each empty cell, and quote each cell that contains a line break or a "
            "carriage return."
        )
    return Problem(file.name, rule, shown, repair)


def _note_rows_in_cells(
    file: Path, dialect: Dialect, rows: _Rows, columns: Sequence[pa.ChunkedArray]
) -> list[str]:
    """Return a note if quoted cells contain lines that look like rows, which a missing closing quote causes.

    A line looks like a row if it has a cell for each column, and one of them is a repeated value of its column.
    """
    if not rows.multiline_rows or len(columns) < 2:
        return []
    repeated = []
    for column in columns:
        counts = pc.value_counts(column.combine_chunks())
        repeated_values = counts.field("values").filter(pc.greater(counts.field("counts"), 1))
        repeated.append({*repeated_values.to_pylist()} - {None})
    lines, first = 0, 0
    for line, cells in rows.multiline_rows:
        row_lines = 0
        for text in "\n".join(cells).split("\n"):
            try:
                row: list[str] = next(iter(dialect.reader([text])), [])
            except csv.Error:
                continue
            fits = len(row) == len(columns)
            if fits and any(cell in values for cell, values in zip(row, repeated, strict=True)):
                row_lines += 1
        if row_lines:
            lines += row_lines
            first = first or line
    if not lines:
        return []
    return [
        f"{file.name}: {lines} line{'s' if lines > 1 else ''} within quoted cells can be read as separate "
        f"rows, starting at the record in line {first}. If they are rows, close or remove the open quote "
        "there."
    ]


def _doubled_names(file: Path, header: Sequence[str], table: pa.Table) -> dict[str, Problem]:
    """Return a problem for each name shared by columns with different values."""
    counts = Counter(name.strip() for name in header if name.strip())
    problems = {}
    for name, count in counts.items():
        if count > 1 and not table.column(name).equals(table.column(f"{name}.1")):
            rule, repair = "must have unique column names", "Rename all but one of them."
            problems[name] = Problem(file.name, rule, f"{name!r} {count} times", repair)
    return problems


def _missing_header_problem(
    file: Path, header: Sequence[str], columns: Sequence[pa.ChunkedArray]
) -> Problem | None:
    """Return a problem if the header may be a row of data: a cell is a value or a number like those of its column."""
    numbered = [name.strip() for name in header] == [str(index) for index in range(len(header))]
    for name, column in zip(header, columns, strict=True):
        occurrences = pc.sum(pc.equal(column, name)).as_py() or 0
        number = not numbered and is_number(name) and all_numbers(column)
        if (occurrences > 1 and name) or number:
            reason = f"also occurs in {occurrences} rows below" if occurrences else "is a number"
            repair = "Add a header line with the column names, such as text,label."
            value = f"{join_quoted(header)}, which looks like a row of data: {name!r} {reason}"
            return Problem(file.name, "must begin with a header line", value, repair)
    return None
