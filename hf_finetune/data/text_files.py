"""Opening of text files in the stated encoding, that of the byte-order mark, or UTF-8; encodings are never guessed."""

import codecs
import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, TextIO, cast

from hf_finetune.data.table_options import TableOptions
from hf_finetune.errors import InputError, Problem

__all__ = ["max_unpacked_bytes", "open_text_file", "too_large_problem"]

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, as it begins with the mark of UTF-16
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_SUGGESTED = ("cp1252", "cp1250", "cp1251", "gbk", "shift_jis")
"""Common encodings of office programs, suggested for a file that is not UTF-8."""
_OTHER_FILES = (
    (b"PK\x03\x04", "a zip archive or an Excel workbook", "Unpack it, or rename it with the suffix .xlsx."),
    (b"\xd0\xcf\x11\xe0", "an old Excel workbook (.xls)", "Save it as .xlsx or .csv."),
    (b"PAR1", "a Parquet file", "Rename it with the suffix .parquet."),
    (b"%PDF", "a PDF document", ""),
    (b"BZh", "a bzip2 archive", "Unpack it, or compress it with gzip."),
    (b"\xfd7zXZ", "an xz archive", "Unpack it, or compress it with gzip."),
    (b"\x28\xb5\x2f\xfd", "a Zstandard archive", "Unpack it, or compress it with gzip."),
    (b"version https://git-lfs", "a Git LFS pointer, not the data", "Fetch the data with `git lfs pull`."),
    (b"<!doctype html", "an HTML page", "Download the file itself, not the page that shows it."),
    (b"<html", "an HTML page", "Download the file itself, not the page that shows it."),
)
_GZIP = b"\x1f\x8b"
_HEAD = 65536
MAX_UNPACKED_BYTES = 100_000_000
MAX_EXPANSION = 100
"""Limit on the unpacked size of a compressed file, as a multiple of its own size.

The larger of this limit and ``MAX_UNPACKED_BYTES`` applies. Text compresses 2 to 20 fold.
"""


@contextmanager
def open_text_file(file: Path, options: TableOptions) -> Iterator[tuple[TextIO, str, tuple[str, ...]]]:
    """Open a text file, optionally compressed with gzip, without conversion of line endings.

    Args:
        file: File to open.
        options: Parsing options, with the encoding if known.

    Yields:
        The text stream, its encoding, and notes to the user.

    Raises:
        InputError: If the file is of another kind, or if it cannot be decoded, on opening or while reading.
    """
    try:
        with _open_bytes(file) as raw:
            head = raw.read(_HEAD)
        kind = next((entry for entry in _OTHER_FILES if head.lower().startswith(entry[0].lower())), None)
        if kind is not None:
            raise InputError(Problem(file.name, "must be a text file", kind[1], kind[2]))
        encoding = _encoding(file, head, options)
        plain = encoding in ("utf-8", "utf-8-sig")
        with _open_bytes(file) as raw, io.TextIOWrapper(raw, encoding=encoding, newline="") as text:
            yield text, encoding, () if plain else (f"{file.name} was read as {encoding}.",)
    except UnicodeError as error:
        raise InputError(_undecodable(file, encoding)) from error
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        value = f"{type(error).__name__}: {error}".rstrip(".")
        raise InputError(Problem(file.name, "must be a complete and valid gzip file", value)) from error


def _open_bytes(file: Path) -> IO[bytes]:
    with file.open("rb") as raw:
        compressed = raw.read(2) == _GZIP
    return cast(IO[bytes], io.BufferedReader(_Unpacked(file), 1 << 16)) if compressed else file.open("rb")


def max_unpacked_bytes(file: Path) -> int:
    """Return the largest allowed unpacked size of a compressed file, in bytes."""
    return max(MAX_UNPACKED_BYTES, MAX_EXPANSION * file.stat().st_size)


def too_large_problem(file: Path) -> Problem:
    """Return the problem of a compressed file that unpacks to more than ``max_unpacked_bytes``."""
    rule = f"must unpack to at most {max_unpacked_bytes(file) / 1e6:,.0f} MB"
    value = f"more from {file.stat().st_size:,} compressed bytes"
    repair = "If you trust the file, unpack it yourself: other files are not limited."
    return Problem(file.name, rule, value, repair)


class _Unpacked(io.RawIOBase):
    """Raw stream of the unpacked content of a gzip file; raises InputError beyond ``max_unpacked_bytes`` bytes."""

    def __init__(self, file: Path):
        self._file, self._gzip = file, gzip.GzipFile(file)
        self._remaining = max_unpacked_bytes(file)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        content = self._gzip.read1(len(buffer))
        self._remaining -= len(content)
        if self._remaining < 0:
            raise InputError(too_large_problem(self._file))
        buffer[: len(content)] = content
        return len(content)

    def close(self) -> None:
        self._gzip.close()
        super().close()


def _encoding(file: Path, head: bytes, options: TableOptions) -> str:
    bom_encoding = next((name for mark, name in _MARKS if head.startswith(mark)), None)
    declared_encoding = options.encoding
    if bom_encoding is not None:
        if (
            declared_encoding is not None
            and not options.fallback
            and _family(declared_encoding) != _family(bom_encoding)
        ):
            value = f"{declared_encoding!r}, but a byte-order mark of {_family(bom_encoding)}"
            raise InputError(Problem("data.encoding", f"must be the encoding of {file.name}", value))
        return bom_encoding
    if declared_encoding is not None and not (options.fallback and _is_utf8(file)):
        return declared_encoding
    if b"\x1b$" in head:
        rule = "must be readable as UTF-8"
        repair = "Set data.encoding: iso2022_jp, or save it again as UTF-8."
        raise InputError(Problem(file.name, rule, "escape sequences of ISO-2022-JP", repair))
    zeros = [head[start::2].count(0) for start in (0, 1)]
    if len(head) > 3 and min(zeros) == 0 and max(zeros) > 0.3 * len(head) / 2:
        likely = "utf-16-be" if zeros[0] else "utf-16-le"
        value = "a NUL byte at every other position, as in UTF-16"
        repair = f"Set data.encoding: {likely}, or save it again as UTF-8."
        raise InputError(Problem(file.name, "must be readable as UTF-8", value, repair))
    return "utf-8"


def _family(encoding: str) -> str:
    """Return the normalized name of an encoding, without its byte order or byte-order mark."""
    name = codecs.lookup(encoding).name
    return next((family for family in ("utf-8", "utf-16", "utf-32") if name.startswith(family)), name)


def _is_utf8(file: Path) -> bool:
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        with _open_bytes(file) as raw:
            while chunk := raw.read(1 << 20):
                decoder.decode(chunk)
            decoder.decode(b"", final=True)
    except (UnicodeDecodeError, EOFError, gzip.BadGzipFile, zlib.error):
        return False
    return True


def _undecodable(file: Path, encoding: str) -> Problem:
    """Return a problem with the first line that cannot be decoded, and its text in other encodings."""
    rule = f"must be readable as {encoding.upper().removesuffix('-SIG')}"
    with _open_bytes(file) as raw:
        number, line = next(
            ((number, line) for number, line in enumerate(raw, start=1) if not _decodes(line, encoding)),
            (0, b""),
        )
    if encoding not in ("utf-8", "utf-8-sig"):
        return Problem(file.name, rule, "invalid bytes", "Set data.encoding, or save it again as UTF-8.")
    readings = {name: _excerpt(line, name) for name in _SUGGESTED}
    shown = ", ".join(f"{name} reads {reading!r}" for name, reading in readings.items() if reading)
    repair = "Save it again as UTF-8, or set data.encoding" + (f": {shown}." if shown else ".")
    return Problem(file.name, rule, f"invalid bytes in line {number}", repair)


def _decodes(line: bytes, encoding: str) -> bool:
    try:
        line.decode(encoding)
    except UnicodeError:
        return False
    return True


def _excerpt(line: bytes, encoding: str) -> str | None:
    """Return the text around the first non-ASCII character of a decoded line; None if the encoding does not fit."""
    try:
        text = line.decode(encoding).strip()
    except UnicodeError:
        return None
    place = next((index for index, character in enumerate(text) if ord(character) > 127), None)
    if place is None or any(not character.isprintable() for character in text if character != "\t"):
        return None
    return text[max(0, place - 8) : place + 8]
