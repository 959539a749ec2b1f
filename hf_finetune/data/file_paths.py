"""Resolution of file paths in tables: from other systems, without a suffix, or relative to another folder."""

import os
import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path, PurePosixPath

from hf_finetune.data.split_names import split_name
from hf_finetune.errors import MAX_LISTED_PROBLEMS, InputError, Problem, join_quoted, truncate
from hf_finetune.tasks import Modality

__all__ = ["FileFinder", "check_paths", "files_below", "is_encoded", "is_file", "is_url"]

_URL = re.compile(r"\s*[a-z][a-z0-9+.-]+://", re.IGNORECASE)
_DATA_URI = re.compile(r"\s*data:\w+/", re.IGNORECASE)
_BASE64 = re.compile(r"\s*(iVBORw0KGgo|/9j/|R0lGOD|UklGR|SUkqA|TU0AK|Qk[\w+/-]{60})[\w+/-]{40}[\w+/\s=-]*")
"""Pattern of a base64-encoded PNG, JPEG, GIF, WebP, TIFF or BMP file. Unlike file names, base64 contains no dots."""


def is_url(value: str) -> bool:
    """Return whether a path is a URL, such as ``https://...``."""
    return _URL.match(value) is not None


def is_encoded(value: str) -> bool:
    """Return whether a path is an image encoded as text: base64, or a URI such as ``data:image/png;base64,...``."""
    return _DATA_URI.match(value) is not None or _BASE64.fullmatch(value) is not None


def is_file(path: Path) -> bool:
    """Return whether a path exists as a file. The path may be any text."""
    try:
        return path.is_file()
    except (OSError, ValueError):  # too long for a path, or contains a NUL
        return False


def check_paths(values: Sequence[str | None], place: str) -> None:
    """Check that no path is a URL or an image encoded as text.

    Args:
        values: Cells of the image column.
        place: Name of the column in the messages.

    Raises:
        InputError: If a path is one of these.
    """
    encoded = [truncate(value) for value in values if value and is_encoded(value)]
    if encoded:
        rule = "must contain file paths, not base64-encoded images or data URIs"
        repair = (
            "Write each image to a file and its path into the table, or the bytes of the images into a column of "
            "a parquet file."
        )
        raise InputError(Problem(place, rule, join_quoted(encoded, most=4), repair))
    urls = [truncate(value) for value in values if value and is_url(value)]
    if urls:
        repair = "Download the images, and replace the URLs by the paths of the files."
        raise InputError(Problem(place, "must contain file paths, not URLs", join_quoted(urls), repair))


class FileFinder:
    """Resolver of the file paths in a table.

    A path that exists is used unchanged, relative to the root or absolute. Otherwise backslashes are read as slashes,
    and the path may differ from that of the file in letter case, omit the suffix, and be relative to any folder below
    the root. It must then match exactly one file. If several match, one at that path relative to the root is
    preferred, then one in the split's folder.

    Args:
        root: Folder to which relative paths refer.
        modality: Kind of input, which defines the suffixes of its files.
        split: Split of the table; None disables the preference for the split's folder.

    Attributes:
        resolved: File of each path that had to be changed to be found, by the original path.
        problems: Paths that match several files.
    """

    def __init__(self, root: Path, modality: Modality, split: str | None = None):
        self.root, self.modality, self.split = root, modality, split
        self.resolved: dict[str, Path] = {}
        self.problems: list[Problem] = []

    def find(self, value: str) -> Path:
        """Return the file of a path, or the path as written if it does not match exactly one file."""
        written = self.root / _at_home(value)
        if is_file(written):
            return written
        plain = value.strip().replace("\\", "/")
        path = self.root / _at_home(plain)
        if not is_file(path):
            candidates = self._candidates(plain)
            if len(candidates) > 1:
                shown = join_quoted(match.relative_to(self.root).as_posix() for match in candidates)
                repair = "Write the path relative to the folder of the table, with its suffix."
                self.problems.append(
                    Problem(repr(truncate(value)), "must match exactly one file", shown, repair)
                )
            if len(candidates) != 1:
                return written
            path = candidates[0]
        self.resolved[value] = path
        return path

    def notes(self) -> list[str]:
        """Return a note on the resolved paths; empty if there are none."""
        if not self.resolved:
            return []
        value, path = next(iter(self.resolved.items()))
        shown = Path(os.path.relpath(path, self.root)).as_posix()
        count = f"{len(self.resolved)} {self.modality.plural_files}"
        return [f"Paths of {count} were resolved, for example {value!r} to {shown!r}."]

    def raise_problems(self) -> None:
        """Raise the problems collected so far.

        Raises:
            InputError: If a path matches several files.
        """
        if self.problems:
            raise InputError(self.problems[:MAX_LISTED_PROBLEMS])

    def _candidates(self, value: str) -> list[Path]:
        """Return the files below the root whose paths end with a value, ignoring letter case and suffix."""
        parts = [part for part in PurePosixPath(_normalized(os.path.normpath(value))).parts if part != "."]
        if not parts or ".." in parts or value.startswith("/"):
            return []
        matches = [
            path
            for relative, path in self._files.get(parts[-1], ())
            if list(relative.parts[-len(parts) : -1]) == parts[:-1]
        ]
        if len(matches) > 1:
            at_root = [path for path in matches if len(path.relative_to(self.root).parts) == len(parts)]
            in_split = [
                path for path in matches if split_name(path.relative_to(self.root).parts[0]) == self.split
            ]
            matches = at_root or (in_split if self.split is not None and in_split else matches)
        return matches

    @cached_property
    def _files(self) -> dict[str, list[tuple[PurePosixPath, Path]]]:
        """Return the files below the root by normalized file name, with and without the suffix."""
        by_name: dict[str, list[tuple[PurePosixPath, Path]]] = {}
        for path in files_below(self.root, lambda path: path.suffix.lower() in self.modality.suffixes):
            relative = PurePosixPath(_normalized(path.relative_to(self.root).as_posix()))
            for key in {_normalized(path.name), _normalized(path.stem)}:
                by_name.setdefault(key, []).append((relative, path))
        return by_name


def files_below(root: Path, is_wanted: Callable[[Path], bool]) -> Iterator[Path]:
    """Yield the files below a folder, without hidden ones. Links are followed, and each folder is visited once.

    Args:
        root: Folder to search.
        is_wanted: Predicate that selects files by their path. Broken links are included.
    """
    seen: set[str] = set()  # links may form cycles
    for folder, folders, names in os.walk(root, followlinks=True):
        if (resolved_path := os.path.realpath(folder)) in seen:
            folders.clear()
            continue
        seen.add(resolved_path)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = Path(folder, name)
            # skip pipes and sockets: reading them would block forever
            if not name.startswith(".") and is_wanted(path) and (path.is_file() or path.is_symlink()):
                yield path


def _at_home(value: str) -> Path:
    """Expand the home directory in ``~/`` only: ``~1.png`` is a file name."""
    return Path(value).expanduser() if value.startswith("~/") else Path(value)


def _normalized(path: str) -> str:
    """Return a path normalized for comparison: case-folded and in Unicode NFC, because systems differ in both."""
    return unicodedata.normalize("NFC", path).casefold()
