"""The dialect of a text file of cells: its separator, its quotes, and the lines before its header."""

import csv
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal, TextIO

from hf_finetune.data.table_options import NO_OPTIONS, TableOptions
from hf_finetune.data.text_files import open_text_file
from hf_finetune.errors import InputError, Problem

__all__ = ["Dialect", "QuoteError", "open_records", "recognize_dialect"]

# The module's limit of 131,072 characters per cell is below the length of documents.
csv.field_size_limit(2**31 - 1)

_NAMES = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "pipes"}
_SAMPLE_LINES = 2000
_STATED = re.compile(r'"?sep=(.)"?', re.IGNORECASE)
"""First line by which Excel is told the separator."""


@dataclass(frozen=True)
class Dialect:
    """How the lines of a file are cut into cells.

    Attributes:
        separator: Character between cells.
        quotes: Quotes enclose cells and are doubled in them, are escaped by a backslash in them, are taken as they
            come, or are ordinary characters.
        skip_blanks: Whether a blank after a separator is no part of the cell.
        skipped: Number of lines before the header.
        encoding: Encoding of the file.
    """

    separator: str
    quotes: Literal["doubled", "backslash", "lenient", "none"] = "doubled"
    skip_blanks: bool = False
    skipped: int = 0
    encoding: str = "utf-8"

    def cut(self, lines: Iterable[str]) -> Any:
        """Return a ``csv.reader`` of lines."""
        return csv.reader(
            lines,
            delimiter=self.separator,
            quoting=csv.QUOTE_NONE if self.quotes == "none" else csv.QUOTE_MINIMAL,
            escapechar="\\" if self.quotes == "backslash" else None,
            skipinitialspace=self.skip_blanks,
            strict=self.quotes in ("doubled", "backslash"),
        )


class QuoteError(ValueError):
    """The quotes of a record do not enclose its cells.

    Attributes:
        line: Line in which the record begins, counted from 1.
    """

    def __init__(self, line: int, reason: str):
        super().__init__(reason)
        self.line = line


def open_records(
    file: Path, dialect: Dialect, options: TableOptions = NO_OPTIONS
) -> Iterator[tuple[int, list[str]]]:
    """Read a file's header and rows.

    Yields:
        The line in which a record begins, counted from 1, and its cells.

    Raises:
        InputError: If the text cannot be decoded, or holds a NUL byte.
        QuoteError: If quotes do not enclose cells.
    """
    with open_text_file(file, replace(options, encoding=dialect.encoding, fallback=False)) as (text, _, _):
        yield from _records(file, text, dialect)


def _records(file: Path, text: TextIO, dialect: Dialect) -> Iterator[tuple[int, list[str]]]:
    lines = _without_nul(file, text)
    for _ in islice(lines, dialect.skipped):
        pass
    reader = dialect.cut(lines)
    line = dialect.skipped + 1
    try:
        for cells in reader:
            yield line, cells
            line = dialect.skipped + reader.line_num + 1
    except csv.Error as error:
        raise QuoteError(line, str(error)) from error


def _without_nul(file: Path, text: TextIO) -> Iterator[str]:
    for number, line in enumerate(text, start=1):
        if "\0" in line:
            repair = "Remove it; if the file is UTF-16, set data.encoding: utf-16-le."
            raise InputError(Problem(file.name, "must not hold NUL bytes", f"one in line {number}", repair))
        yield line


def recognize_dialect(file: Path, options: TableOptions) -> tuple[Dialect, list[str]]:
    """Recognize the dialect of a file by its first lines.

    Args:
        file: The file.
        options: What is known of it.

    Returns:
        The dialect, with quotes taken as doubled, and notes.

    Raises:
        InputError: If more than one separator fits, or if the file cannot be decoded.
    """
    with open_text_file(file, options) as (text, encoding, encoding_notes):
        lines = list(islice(_without_nul(file, text), _SAMPLE_LINES))
    notes = list(encoding_notes)
    usual = "\t" if Path(file.name.lower().removesuffix(".gz")).suffix == ".tsv" else ","
    skipped, separator, marks = _preamble(lines)
    if options.separator is not None and not options.fallback:
        separator = options.separator
    if separator is None:
        separator = _separator(file, lines[skipped:], usual, options.separator)
    comments = lines[skipped - marks : skipped]
    if comments and _is_header(comments[-1], lines[skipped:], separator):
        skipped, marks = skipped - 1, marks - 1
    if marks:
        notes.append(f"{file.name}: comments before the header were left out: {marks}.")
    if separator != usual:
        notes.append(f"{file.name}: the cells are separated by {_NAMES.get(separator, repr(separator))}.")
    dialect = Dialect(separator, skipped=skipped, encoding=encoding)
    if _blank_after_separators(lines[skipped:], dialect):
        dialect = replace(dialect, skip_blanks=True)
        notes.append(f"{file.name}: the blank after each separator was left out.")
    return dialect, notes


def _preamble(lines: Sequence[str]) -> tuple[int, str | None, int]:
    """Return how many lines come before the header, the separator that one states, and how many are comments."""
    separator = None
    skipped = marks = 0
    for line in lines:
        stated = _STATED.fullmatch(line.rstrip("\r\n")) if separator is None and not marks else None
        if stated:
            separator = stated[1]
        elif line.startswith("#"):
            marks += 1
        elif line.strip():
            break
        elif marks:  # a blank line among comments would break the count of those right before the header
            marks += 1
        skipped += 1
    return (skipped, separator, marks) if skipped < len(lines) else (0, separator, 0)


def _is_header(comment: str, lines: Sequence[str], separator: str) -> bool:
    """Return whether a line that begins with # has as many cells as the row after it, and several."""
    first = next(iter(_cut(lines[:1], separator)), [])
    cells = next(iter(_cut([comment], separator)), [])
    return len(cells) == len(first) > 1


def _cut(lines: Iterable[str], separator: str) -> list[list[str]]:
    return [cells for cells in Dialect(separator, "lenient").cut(lines) if cells]


def _separator(file: Path, lines: Sequence[str], usual: str, fallback: str | None) -> str:
    """Return the one separator that cuts the header and the rows after it into equally many cells."""
    sample = {candidate: _cut(lines, candidate) for candidate in _NAMES}
    cut = {candidate: rows for candidate, rows in sample.items() if rows and len(rows[0]) > 1}
    if usual == "\t" and usual in cut:  # the suffix states it
        return usual
    if len(cut) < 2:
        return next(iter(cut), fallback or usual)
    share = {candidate: _share_that_fits(rows) for candidate, rows in cut.items()}
    best = max(share, key=lambda candidate: share[candidate])
    if share[best] >= 0.9 and all(share[other] < 0.5 for other in share if other != best):
        return best
    if fallback in cut:
        return str(fallback)
    value = ", ".join(f"{_NAMES[candidate]}: {len(rows[0])} cells" for candidate, rows in cut.items())
    repair = "Set data.separator."
    raise InputError(Problem(file.name, "must have one separator that its header shows", value, repair))


def _share_that_fits(rows: Sequence[Sequence[str]]) -> float:
    """Return the share of rows with as many cells as the header. The last one may be cut off by the sample."""
    width, body = len(rows[0]), rows[1:-1] or rows[1:]
    fits = sum(len(row) == width or (len(row) > width and not any(row[width:])) for row in body)
    return fits / len(body) if body else 0.0


def _blank_after_separators(lines: Sequence[str], dialect: Dialect) -> bool:
    """Return whether each cell but the first begins with a blank, in the header and in the rows after it."""
    rows = _cut(lines, dialect.separator)[:100]
    if not rows or len(rows[0]) < 2 or dialect.separator.isspace():
        return False
    return all(cell.startswith(" ") for cells in rows for cell in cells[1:] if cell)
