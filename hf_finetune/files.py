"""Files that are whole or not there."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["can_be_path", "replacing", "replacing_folder"]

_LONGEST_NAME, _LONGEST_PATH = 255, 4095
"""Bytes that a name and a path may have on Linux."""


def can_be_path(path: str | Path) -> bool:
    """Return whether a file can have this path, by its length and its characters."""
    try:
        encoded = os.fsencode(path)
    except UnicodeEncodeError:  # half of a surrogate pair
        return False
    longest = max(map(len, encoded.split(b"/")))
    return b"\0" not in encoded and longest <= _LONGEST_NAME and len(encoded) <= _LONGEST_PATH


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary file beside ``path`` to write to, and put it in its place when the block ends well.

    Whatever goes wrong in the block, Ctrl-C included, what was at ``path`` before stays as it was.

    Raises:
        OSError: If the folder is missing or cannot be written to.
    """
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)  # mkstemp's own mode lets nobody else read the result
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def replacing_folder(folder: Path) -> Iterator[Path]:
    """Give the path of a folder to make, and put it in this one's place when the block ends well."""
    partial = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        yield partial
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
