"""Detection of the dialect of csv-like files: separator, quoting, and lines before the header."""

import csv
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal, TextIO

from hf_finetune.data.table_options import TableOptions
from hf_finetune.data.text_files import open_text_file
from hf_finetune.errors import InputError, Problem

__all__ = ["Dialect", "QuoteError", "open_records", "recognize_dialect"]

# The default limit of the csv module, 131,072 characters per cell, is too small for documents.
csv.field_size_limit(2**31 - 1)

_NAMES = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "pipes"}
_SAMPLE_LINES = 2000
_SEPARATOR_LINE = re.compile(r'"?sep=(.)"?', re.IGNORECASE)
"""Pattern of a first line that declares the separator for Excel: ``sep=;``."""


@dataclass(frozen=True)
class Dialect:
    """Dialect of a csv-like file.

    Attributes:
        separator: Character between cells.
        quotes: Quoting: quotes enclose cells, and quotes within cells are doubled (``doubled``) or escaped by a
            backslash (``backslash``); stray quotes are tolerated (``lenient``); or quotes are ordinary characters
            (``none``).
        skip_blanks: Whether a space after a separator is ignored.
        skipped: Number of lines before the header.
        encoding: Encoding of the file.
    """

    separator: str
    quotes: Literal["doubled", "backslash", "lenient", "none"] = "doubled"
    skip_blanks: bool = False
    skipped: int = 0
    encoding: str = "utf-8"

    def reader(self, lines: Iterable[str]) -> Any:
        """Return a ``csv.reader`` of the lines in this dialect."""
        return csv.reader(
            lines,
            delimiter=self.separator,
            quoting=csv.QUOTE_NONE if self.quotes == "none" else csv.QUOTE_MINIMAL,
            escapechar="\\" if self.quotes == "backslash" else None,
            skipinitialspace=self.skip_blanks,
            strict=self.quotes in ("doubled", "backslash"),
        )


class QuoteError(ValueError):
    """Error raised if the quotes of a record do not enclose its cells.

    Attributes:
        line: Number of the line in which the record begins, counted from 1.
    """

    def __init__(self, line: int, reason: str):
        super().__init__(reason)
        self.line = line


def open_records(file: Path, dialect: Dialect) -> Iterator[tuple[int, list[str]]]:
    """Read the header and the rows of a file.

    Args:
        file: File to read, optionally compressed with gzip.
        dialect: Dialect of the file.

    Yields:
        Number of the line in which each record begins, counted from 1, and the cells of the record.

    Raises:
        InputError: If the text cannot be decoded, or contains a NUL byte.
        QuoteError: If quotes do not enclose cells.
    """
    with open_text_file(file, TableOptions(dialect.encoding)) as (text, _, _):
        reader = dialect.reader(islice(_without_nul(file, text), dialect.skipped, None))
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
            raise InputError(
                Problem(file.name, "must not contain NUL bytes", f"a NUL byte in line {number}", repair)
            )
        yield line


def recognize_dialect(file: Path, options: TableOptions) -> tuple[Dialect, list[str]]:
    """Detect the dialect of a file from its first lines.

    Args:
        file: File to inspect.
        options: Known properties of the file; the others are detected.

    Returns:
        The dialect, with ``doubled`` quotes, and notes for the user.

    Raises:
        InputError: If more than one separator fits, or if the file cannot be decoded.
    """
    with open_text_file(file, options) as (text, encoding, encoding_notes):
        lines = list(islice(_without_nul(file, text), _SAMPLE_LINES))
    notes = list(encoding_notes)
    usual = "\t" if Path(file.name.lower().removesuffix(".gz")).suffix == ".tsv" else ","
    skipped, separator, comment_count = _preamble(lines)
    if options.separator is not None and not options.fallback:
        separator = options.separator
    if separator is None:
        separator = _separator(file, lines[skipped:], usual, options.separator)
    comments = lines[skipped - comment_count : skipped]
    if comments and _is_header(comments[-1], lines[skipped:], separator):
        skipped, comment_count = skipped - 1, comment_count - 1
    if comment_count:
        notes.append(f"{file.name}: comment lines before the header were skipped: {comment_count}.")
    if separator != usual:
        notes.append(f"{file.name}: the cells are separated by {_NAMES.get(separator, repr(separator))}.")
    dialect = Dialect(separator, skipped=skipped, encoding=encoding)
    if _blank_after_separators(lines[skipped:], dialect):
        dialect = replace(dialect, skip_blanks=True)
        notes.append(f"{file.name}: the space after each separator was removed.")
    return dialect, notes


def _preamble(lines: Sequence[str]) -> tuple[int, str | None, int]:
    """Return the number of lines before the header, the separator declared there, and the number of comment lines."""
    separator = None
    skipped = comment_count = 0
    for line in lines:
        in_front = separator is None and not comment_count
        declared = _SEPARATOR_LINE.fullmatch(line.rstrip("\r\n")) if in_front else None
        if declared:
            separator = declared[1]
        elif line.startswith("#"):
            comment_count += 1
        elif line.strip():
            break
        elif comment_count:
            # a blank line counts as a comment, so that no line is between comments and header
            comment_count += 1
        skipped += 1
    return (skipped, separator, comment_count) if skipped < len(lines) else (0, separator, 0)


def _is_header(comment: str, lines: Sequence[str], separator: str) -> bool:
    """Return whether a line that begins with # is the header: it has several cells, as many as the row after it."""
    first = next(iter(_split_lines(lines[:1], separator)), [])
    cells = next(iter(_split_lines([comment], separator)), [])
    return len(cells) == len(first) > 1


def _split_lines(lines: Iterable[str], separator: str) -> list[list[str]]:
    return [cells for cells in Dialect(separator, "lenient").reader(lines) if cells]


def _separator(file: Path, lines: Sequence[str], usual: str, fallback: str | None) -> str:
    """Return the separator that splits the header and the rows after it into the same number of cells."""
    sample = {candidate: _split_lines(lines, candidate) for candidate in _NAMES}
    rows_by_separator = {candidate: rows for candidate, rows in sample.items() if rows and len(rows[0]) > 1}
    if usual == "\t" and usual in rows_by_separator:  # the suffix states it
        return usual
    if len(rows_by_separator) < 2:
        return next(iter(rows_by_separator), fallback or usual)
    share = {candidate: _share_that_fits(rows) for candidate, rows in rows_by_separator.items()}
    best = max(share, key=lambda candidate: share[candidate])
    if share[best] >= 0.9 and all(share[alternative] < 0.5 for alternative in share if alternative != best):
        return best
    if fallback in rows_by_separator:
        return str(fallback)
    cells = ", ".join(
        f"{_NAMES[candidate]}: {len(rows[0])} cells" for candidate, rows in rows_by_separator.items()
    )
    rule, value = "must have an unambiguous separator", f"several candidates ({cells})"
    raise InputError(Problem(file.name, rule, value, "Set data.separator."))


def _share_that_fits(rows: Sequence[Sequence[str]]) -> float:
    """Return the fraction of rows with as many cells as the header. The last row may be truncated by the sample."""
    width, body = len(rows[0]), rows[1:-1] or rows[1:]
    fits = sum(len(row) == width or (len(row) > width and not any(row[width:])) for row in body)
    return fits / len(body) if body else 0.0


def _blank_after_separators(lines: Sequence[str], dialect: Dialect) -> bool:
    """Return whether every non-empty cell after the first begins with a space, in the header and the first rows."""
    rows = _split_lines(lines, dialect.separator)[:100]
    if not rows or len(rows[0]) < 2 or dialect.separator.isspace():
        return False
    return all(cell.startswith(" ") for cells in rows for cell in cells[1:] if cell)
