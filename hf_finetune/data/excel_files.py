"""Excel workbooks read as columns of strings, as their cells show."""

import re
import zipfile
from collections.abc import Sequence
from datetime import date, datetime, time
from pathlib import Path
from typing import Any

import pyarrow as pa

from hf_finetune.data.csv_files import column_names
from hf_finetune.data.table_options import FileTable
from hf_finetune.data.text_files import most_unpacked, too_large
from hf_finetune.data.wording import quoted
from hf_finetune.errors import InputError, Problem

__all__ = ["read_excel"]

_LEADING_ZEROS = re.compile("0{2,}")
"""Number format of codes: as many digits as it has zeros."""


def read_excel(file: Path) -> FileTable:
    """Read the first sheet of a workbook.

    Formulas stand for the values that were stored with them, and errors such as ``#N/A`` are missing.

    Args:
        file: An ``.xlsx`` file.

    Raises:
        InputError: If it cannot be read, has a cell beyond its header, or has a formula without a stored value.
    """
    try:
        import openpyxl  # an extra
        from openpyxl.utils.exceptions import InvalidFileException
    except ImportError as error:
        repair = "Install it with `pip install 'hf-finetune[excel]'`, or save the sheet as .csv."
        raise InputError(Problem(file.name, "needs openpyxl to be read", "", repair)) from error
    try:
        with zipfile.ZipFile(file) as archive:
            if sum(member.file_size for member in archive.infolist()) > most_unpacked(file):
                raise InputError(too_large(file))
        book = openpyxl.load_workbook(file, read_only=True, data_only=True)
    except InputError:
        raise
    except (zipfile.BadZipFile, InvalidFileException, KeyError, ValueError, OSError) as error:
        value = f"{type(error).__name__}: {error}".rstrip(".")
        raise InputError(Problem(file.name, "must be readable as xlsx", value)) from error
    try:
        sheet = book.worksheets[0]
        sheet.reset_dimensions()  # some programs write wrong ones
        grid = [[_text(cell) for cell in row] for row in sheet.iter_rows()]
        titles = [other.title for other in book.worksheets]
    finally:
        book.close()
    first = next((index for index, row in enumerate(grid) if any(row)), None)
    if first is None:
        raise InputError(
            Problem(file.name, "must hold at least one example", f"nothing in sheet {titles[0]!r}")
        )
    width = max(index + 1 for index, cell in enumerate(grid[first]) if cell)
    wide = [number for number, row in enumerate(grid, start=1) if any(row[width:])]
    if wide:
        rule = f"must have no values beyond the {width} columns that its header names"
        raise InputError(Problem(file.name, rule, f"some in row {quoted(map(str, wide))}".replace("'", "")))
    names, unnamed = column_names([cell or "" for cell in grid[first][:width]])
    rows = [[*row[:width], *[None] * (width - len(row))] for row in grid[first + 1 :]]
    while rows and not any(rows[-1]):
        rows.pop()
    _check_formulas(file, first, rows)
    notes = (
        []
        if len(titles) == 1
        else [
            f"{file.name}: the first sheet, {titles[0]!r}, was read; the others were not: {quoted(titles[1:])}."
        ]
    )
    if unnamed:
        notes.append(
            f"{file.name}: columns without a name are called {quoted(names[place] for place in sorted(unnamed))}."
        )
    columns = {name: pa.array([row[place] for row in rows], pa.string()) for place, name in enumerate(names)}
    return FileTable(pa.table(columns), True, tuple(notes))


def _text(cell: Any) -> str | None:
    """Return a cell's value as it is shown: whole numbers without a point, dates as ISO 8601 has them."""
    value = cell.value
    if value is None or cell.data_type == "e":
        return None
    if isinstance(value, bool | str):
        return str(value) or None
    if isinstance(value, int | float):
        whole = float(value).is_integer()
        if whole and _LEADING_ZEROS.fullmatch(cell.number_format or ""):
            return str(int(value)).zfill(len(cell.number_format))
        return str(int(value)) if whole else f"{value:.15g}"  # the digits that Excel has
    if isinstance(value, datetime):
        return value.date().isoformat() if value.time() == time() else value.isoformat(sep=" ")
    return value.isoformat() if isinstance(value, date | time) else str(value)


def _check_formulas(file: Path, header: int, rows: Sequence[Sequence[str | None]]) -> None:
    """Raise an InputError for formulas whose value was never computed. Programs that only write files leave it out."""
    if all(cell is not None for row in rows for cell in row):
        return
    import openpyxl

    book = openpyxl.load_workbook(file, read_only=True)
    try:
        sheet = book.worksheets[0]
        sheet.reset_dimensions()
        empty = [
            cell.coordinate
            for row, values in zip(sheet.iter_rows(min_row=header + 2), rows, strict=False)
            for cell, value in zip(row, values, strict=False)
            if value is None and cell.data_type == "f"
        ]
    finally:
        book.close()
    if empty:
        repair = "Open the workbook in Excel or LibreOffice, save it, and try again."
        raise InputError(
            Problem(file.name, "must hold the values of its formulas", f"none in {quoted(empty)}", repair)
        )
