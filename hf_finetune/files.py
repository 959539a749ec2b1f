"""Atomic writing of files and folders, which are complete or do not exist, and reading of files that may be damaged."""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

__all__ = ["atomic_file", "atomic_folder", "is_valid_path", "read_json_object"]

_MAX_NAME_BYTES = 255
"""Maximum length of a file name on Linux."""
_MAX_PATH_BYTES = 4095
"""Maximum length of a path on Linux."""


def is_valid_path(path: str | Path) -> bool:
    """Return whether a path is valid for a file, by its length and its characters."""
    try:
        encoded = os.fsencode(path)
    except UnicodeEncodeError:  # half of a surrogate pair
        return False
    longest_name = max(map(len, encoded.split(b"/")))
    return b"\0" not in encoded and longest_name <= _MAX_NAME_BYTES and len(encoded) <= _MAX_PATH_BYTES


def read_json_object(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file; empty if the file is missing, unreadable or contains no object."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield the path of a temporary file next to ``path``, which replaces ``path`` when the block succeeds.

    If the block fails, including by Ctrl-C, a file that was at ``path`` stays unchanged.

    Args:
        path: File to write, in an existing folder.

    Raises:
        OSError: If the folder is missing or cannot be written to.
    """
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        umask = os.umask(0)  # it can only be read by setting it
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)  # mkstemp creates a file that only its owner can read
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def atomic_folder(folder: Path) -> Iterator[Path]:
    """Yield the path of a temporary folder, which the block creates; it replaces ``folder`` when the block succeeds.

    Args:
        folder: Folder to write; an existing one is replaced.
    """
    partial = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        yield partial
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
