"""Lazily read folder tree: symbolic links are followed, loops are errors, system files are skipped."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from hf_finetune.errors import InputError, Problem

__all__ = ["Folder", "FollowedLinks", "saved_link_target"]

# Files and folders created by file managers and archivers, in lower case.
_SYSTEM = frozenset({"thumbs.db", "ehthumbs.db", "desktop.ini", "__macosx", "@eadir", "$recycle.bin"})
_MOST_VISITS = 1000
_LONGEST_LINK = 4096


@dataclass
class FollowedLinks:
    """Followed links that lead out of the root or were saved as text files.

    Attributes:
        root: Root folder of the tree, with links resolved.
        outside: Target of each link that leads out of the root.
        saved: Target of each link saved as a text file, as git does where symbolic links are disabled.
        visits: Number of times each folder was reached, by its path with links resolved.
    """

    root: Path
    outside: dict[Path, Path] = field(default_factory=dict)
    saved: dict[Path, Path] = field(default_factory=dict)
    visits: dict[Path, int] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Folder:
    """Folder whose entries are read on first access.

    Attributes:
        path: Path by which the folder is reached.
        shown: The same path for messages, with the name of a link saved as a text file in place of its target.
        suffixes: Suffixes of example files, in lower case, with their dot.
        resolved_path: Path with links resolved.
        ancestors: Enclosing folders from the root of the tree downward, with links resolved.
        links: Followed links of the whole tree.
    """

    path: Path
    shown: Path
    suffixes: frozenset[str]
    resolved_path: Path
    ancestors: tuple[Path, ...]
    links: FollowedLinks

    @staticmethod
    def open(path: Path, suffixes: frozenset[str]) -> "Folder":
        """Return the tree below a folder, which may itself be a link."""
        resolved_path = Path(os.path.realpath(path))
        return Folder(path, path, suffixes, resolved_path, (), FollowedLinks(resolved_path))

    @property
    def name(self) -> str:
        """Return the last part of the path."""
        return self.shown.name

    @property
    def folders(self) -> tuple["Folder", ...]:
        """Return the subfolders sorted by name, without hidden ones."""
        return self._entries[0]

    @property
    def examples(self) -> tuple[Path, ...]:
        """Return the files with one of the suffixes sorted by name, including broken links."""
        return self._entries[1]

    @property
    def other_files(self) -> tuple[Path, ...]:
        """Return all other files sorted by name, without hidden files and system files."""
        return self._entries[2]

    @property
    def hidden(self) -> tuple[Path, ...]:
        """Return hidden files with one of the suffixes, and hidden folders that contain such files."""
        return self._entries[3]

    def walk(self) -> Iterator["Folder"]:
        """Yield this folder and all folders below it, in depth-first preorder."""
        waiting = [self]
        while waiting:
            folder = waiting.pop()
            yield folder
            waiting += reversed(folder.folders)

    @cached_property
    def contains_examples(self) -> bool:
        """Return whether the folder contains examples at any depth."""
        return any(folder.examples for folder in self.walk())

    @property
    def has_example_folders(self) -> bool:
        """Return whether a subfolder contains examples at any depth."""
        return any(folder.contains_examples for folder in self.folders)

    @cached_property
    def _entries(self) -> tuple[tuple["Folder", ...], tuple[Path, ...], tuple[Path, ...], tuple[Path, ...]]:
        """Return subfolders, examples, other files and hidden entries; raise an InputError for unreadable ones."""
        folders, examples, other_files, hidden = [], [], [], []
        problems: list[Problem] = []
        for entry in _scan(self.path):
            path = self.path / entry.name
            if entry.name.lower() in _SYSTEM or entry.name.startswith("._"):
                continue
            is_example = path.suffix.lower() in self.suffixes
            if entry.name.startswith("."):
                if self._has_hidden_examples(entry, is_example):
                    hidden.append(path)
                continue
            if not _is_utf8(entry.name):
                rule = "must contain only names in UTF-8"
                problems.append(Problem(str(self.path), rule, repr(entry.name), "Rename this entry."))
                continue
            target = path if _is_folder(entry) else None
            if target is None and not is_example and (saved := saved_link_target(path)) and saved.is_dir():
                target = self.links.saved[path] = saved
            if target is not None:
                is_link = entry.is_symlink() or target != path
                resolved_path = self._follow(path, target) if is_link else self.resolved_path / entry.name
                if resolved_path in (*self.ancestors, self.resolved_path):
                    rule = "must not be a link to one of its parent folders"
                    problems.append(
                        Problem(str(path), rule, f"a link to '{resolved_path}'", "Remove the link.")
                    )
                else:
                    self._count_visit(path, resolved_path)
                    ancestors = (*self.ancestors, self.resolved_path)
                    shown = self.shown / entry.name
                    folders.append(Folder(target, shown, self.suffixes, resolved_path, ancestors, self.links))
            elif entry.is_symlink() and not path.exists() and not is_example:
                rule = "must be a link to an existing file or folder"
                value = f"a link to '{path.readlink()}'"
                problems.append(Problem(str(path), rule, value, "Fix or remove the link."))
            elif is_example and (entry.is_symlink() or entry.is_file()):
                if entry.is_symlink():
                    self._follow(path, path)
                examples.append(path)
            else:
                other_files.append(path)
        if problems:
            raise InputError(problems)
        return tuple(folders), tuple(examples), tuple(other_files), tuple(hidden)

    def _has_hidden_examples(self, entry: os.DirEntry[str], is_example: bool) -> bool:
        if not _is_folder(entry):
            return is_example
        try:
            return any(path.suffix.lower() in self.suffixes for path in Path(entry.path).iterdir())
        except OSError:
            return False

    def _follow(self, link: Path, target: Path) -> Path:
        resolved_path = Path(os.path.realpath(target))
        if not resolved_path.is_relative_to(self.links.root) and link not in self.links.saved:
            self.links.outside[link] = resolved_path
        return resolved_path

    def _count_visit(self, path: Path, resolved_path: Path) -> None:
        """Raise an InputError if links create more paths to a folder than can be walked."""
        self.links.visits[resolved_path] = self.links.visits.get(resolved_path, 0) + 1
        if self.links.visits[resolved_path] > _MOST_VISITS:
            rule = f"must not be reachable through more than {_MOST_VISITS} links"
            raise InputError(
                Problem(str(resolved_path), rule, f"for example '{path}'", "Remove some of these links.")
            )


def saved_link_target(file: Path) -> Path | None:
    """Return the target of a symbolic link that was saved as a text file, as git does where links are disabled.

    Args:
        file: File that may contain a path and nothing else.

    Returns:
        The target, or None if the file is not such a link or its target does not exist.
    """
    try:
        if not file.is_file() or not 0 < file.stat().st_size <= _LONGEST_LINK:
            return None
        written = file.read_bytes().decode()
        target = Path(os.path.normpath(file.parent / written))
        return target if "\n" not in written and target != file and target.exists() else None
    except (OSError, ValueError):  # not text, not a path, or unreadable
        return None


def _scan(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        rule = "must be a folder that can be read"
        raise InputError(Problem(str(folder), rule, str(error.strerror))) from error


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
