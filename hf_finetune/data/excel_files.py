"""Reader of Excel workbooks as columns of strings, formatted as Excel displays them."""

import re
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import date, datetime, time
from pathlib import Path
from typing import Any

import pyarrow as pa

from hf_finetune.data.csv_files import column_names
from hf_finetune.data.file_table import FileTable
from hf_finetune.data.text_files import max_unpacked_bytes, too_large_problem
from hf_finetune.errors import InputError, Problem, join_quoted, join_words

__all__ = ["read_excel"]

_LEADING_ZEROS = re.compile("0{2,}")
"""Excel number format of codes: the number is padded with zeros to the length of the format."""
_INVALID_DATE_WARNING = re.compile(r"Cell (\w+) is marked as a date")
"""Warning of openpyxl 3.1 for a number with a date format that is out of range for dates; openpyxl drops the number."""


@dataclass
class _Errors:
    """Cells that contain an error instead of a value.

    Attributes:
        shown: Error such as ``#N/A``, by the coordinates of its cell.
        columns: Column of each error, counted from 0, by the coordinates of its cell.
        no_dates: Coordinates of cells whose number openpyxl could not convert to a date.
    """

    shown: dict[str, str] = field(default_factory=dict)
    columns: dict[str, int] = field(default_factory=dict)
    no_dates: frozenset[str] = frozenset()


def read_excel(file: Path) -> FileTable:
    """Read the first sheet of a workbook.

    A formula is read as its stored value. Errors such as ``#N/A`` are read as missing values, with a note.

    Args:
        file: An ``.xlsx`` file.

    Returns:
        Table of string columns; empty cells are null.

    Raises:
        InputError: If openpyxl is not installed, or if the file cannot be read, is empty, has a cell beyond its header,
            or has a formula without a stored value.
    """
    try:
        from openpyxl.utils.exceptions import InvalidFileException  # optional dependency
    except ImportError as error:
        repair = "Install it with `pip install 'hf-finetune[excel]'`, or save the sheet as .csv."
        raise InputError(Problem(file.name, "needs openpyxl to be read", "", repair)) from error
    try:
        with zipfile.ZipFile(file) as archive:
            if sum(member.file_size for member in archive.infolist()) > max_unpacked_bytes(file):
                raise InputError(too_large_problem(file))
        grid, titles, errors = _read(file)
    except InputError:
        raise
    except (zipfile.BadZipFile, InvalidFileException, KeyError, ValueError, OSError) as error:
        value = f"{type(error).__name__}: {error}".rstrip(".")
        raise InputError(Problem(file.name, "must be readable as xlsx", value)) from error
    first = next((index for index, row in enumerate(grid) if any(row)), None)
    if first is None:
        rule, value = "must have values in its first sheet", f"the empty sheet {titles[0]!r}"
        raise InputError(Problem(file.name, rule, value))
    width = max(index + 1 for index, cell in enumerate(grid[first]) if cell)
    wide = [number for number, row in enumerate(grid, start=1) if any(row[width:])]
    if wide:
        columns = "1 column" if width == 1 else f"{width} columns"
        rule = f"must not have values to the right of the {columns} of its header"
        title = "if that row is a title, delete the rows above the header."
        repair = f"Name every column in row {first + 1}; {title}"
        raise InputError(Problem(file.name, rule, f"values in row {join_words(map(str, wide))}", repair))
    names, unnamed = column_names([cell or "" for cell in grid[first][:width]])
    rows = [[*row[:width], *[None] * (width - len(row))] for row in grid[first + 1 :]]
    while rows and not any(rows[-1]):
        rows.pop()
    _check_formulas(file, first, rows)
    notes = []
    if len(titles) > 1:
        skipped = join_quoted(titles[1:])
        notes.append(f"{file.name}: only the first sheet, {titles[0]!r}, was read; skipped: {skipped}.")
    if unnamed:
        shown = join_quoted(names[place] for place in sorted(unnamed))
        notes.append(f"{file.name}: columns without a name are called {shown}.")
    notes += _note_errors(file, errors)
    arrays = {name: pa.array([row[place] for row in rows], pa.string()) for place, name in enumerate(names)}
    return FileTable(pa.table(arrays), True, tuple(notes), _no_dates(file, errors, names))


def _read(file: Path) -> tuple[list[list[str | None]], list[str], _Errors]:
    """Return the cells of the first sheet as texts, the titles of all sheets, and the cells with errors."""
    import openpyxl

    errors = _Errors()
    # openpyxl warns of everything that it cannot read, such as styles; only its warnings about dates matter here.
    with warnings.catch_warnings(record=True) as caught_warnings:
        warnings.simplefilter("always")
        with closing(openpyxl.load_workbook(file, read_only=True, data_only=True)) as book:
            sheet = book.worksheets[0]
            sheet.reset_dimensions()  # some programs write wrong ones
            grid = []
            for row in sheet.iter_rows():
                grid.append([_text(cell) for cell in row])
                for place, cell in enumerate(row):
                    if cell.data_type == "e" and cell.value is not None:
                        errors.shown[cell.coordinate] = str(cell.value)
                        errors.columns[cell.coordinate] = place
            titles = [worksheet.title for worksheet in book.worksheets]
    date_warnings = [_INVALID_DATE_WARNING.match(str(warning.message)) for warning in caught_warnings]
    errors.no_dates = frozenset(match[1] for match in date_warnings if match is not None)
    return grid, titles, errors


def _note_errors(file: Path, errors: _Errors) -> list[str]:
    """Return a note on the cells with errors, except numbers out of range for dates."""
    shown = [f"{cell} ({value})" for cell, value in errors.shown.items() if cell not in errors.no_dates]
    return [f"{file.name}: cells with an error are read as empty: {join_words(shown)}."] if shown else []


def _no_dates(file: Path, errors: _Errors, names: Sequence[str]) -> Mapping[str, Problem]:
    """Return a problem for each column with date-formatted numbers that are out of range for dates."""
    cells: dict[str, list[str]] = {}
    for cell, place in errors.columns.items():
        if cell in errors.no_dates and place < len(names):
            cells.setdefault(names[place], []).append(cell)
    rule = "must not contain date-formatted numbers that are out of range for dates"
    problems = {}
    for name, places in cells.items():
        repair = f"Set a number format for the column {name!r} in Excel or LibreOffice, and save the file."
        problems[name] = Problem(file.name, rule, join_words(places), repair)
    return problems


def _text(cell: Any) -> str | None:
    """Return a cell's value as text: whole numbers without a decimal point, dates in ISO 8601."""
    value = cell.value
    if value is None or cell.data_type == "e":
        return None
    if isinstance(value, bool | str):
        return str(value) or None
    if isinstance(value, int | float):
        whole = float(value).is_integer()
        if whole and _LEADING_ZEROS.fullmatch(cell.number_format or ""):
            return str(int(value)).zfill(len(cell.number_format))
        return str(int(value)) if whole else f"{value:.15g}"  # Excel has 15 significant digits
    if isinstance(value, datetime):
        return value.date().isoformat() if value.time() == time() else value.isoformat(sep=" ")
    return value.isoformat() if isinstance(value, date | time) else str(value)


def _check_formulas(file: Path, header: int, rows: Sequence[Sequence[str | None]]) -> None:
    """Raise an InputError if a formula has no stored value, which programs that write files without Excel omit."""
    if all(cell is not None for row in rows for cell in row):
        return
    import openpyxl

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the first read has handled them
        with closing(openpyxl.load_workbook(file, read_only=True)) as book:
            sheet = book.worksheets[0]
            sheet.reset_dimensions()
            empty = [
                cell.coordinate
                for row, values in zip(sheet.iter_rows(min_row=header + 2), rows, strict=False)
                for cell, value in zip(row, values, strict=False)
                if value is None and cell.data_type == "f"
            ]
    if empty:
        rule, value = "must contain the computed values of its formulas", f"no values in {join_quoted(empty)}"
        repair = "Open the workbook in Excel or LibreOffice, save it, and try again."
        raise InputError(Problem(file.name, rule, value, repair))
