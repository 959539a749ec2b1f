"""Folders as a tree that is read on demand: links are followed, loops refused, system files passed over."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from hf_finetune.errors import InputError, Problem

__all__ = ["Folder", "FollowedLinks", "saved_link_target"]

# Written by file managers and archivers, never by a person.
_SYSTEM = frozenset({"thumbs.db", "ehthumbs.db", "desktop.ini", "__macosx", "@eadir", "$recycle.bin"})
_MOST_VISITS = 1000
_LONGEST_LINK = 4096


@dataclass
class FollowedLinks:
    """Links that were followed, other than those within the folder that a tree begins with.

    Attributes:
        root: That folder, without links.
        outside: The place that each link leads to which leads out of it.
        saved: The place that each link leads to which is a text file, as git writes it where links are off.
        visits: How often each folder below a link was read, by its path without links.
    """

    root: Path
    outside: dict[Path, Path] = field(default_factory=dict)
    saved: dict[Path, Path] = field(default_factory=dict)
    visits: dict[Path, int] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Folder:
    """A folder whose entries are read when they are first needed.

    Attributes:
        path: Its path, as it is reached.
        shown: The same, with the name of a link that is a text file in the place of its target.
        suffixes: Endings of the files that are examples, in lower case, with their dot.
        real: Its path without links.
        above: The folders that it lies in, from the root of the tree on, without links.
        links: The links that were followed.
    """

    path: Path
    shown: Path
    suffixes: frozenset[str]
    real: Path
    above: tuple[Path, ...]
    links: FollowedLinks

    @staticmethod
    def open(path: Path, suffixes: frozenset[str]) -> "Folder":
        """Return the tree that begins at a folder, which may itself be a link."""
        real = Path(os.path.realpath(path))
        return Folder(path, path, suffixes, real, (), FollowedLinks(real))

    @property
    def name(self) -> str:
        """The last part of its path."""
        return self.shown.name

    @property
    def folders(self) -> tuple["Folder", ...]:
        """The folders in it, by name, without hidden ones."""
        return self._entries[0]

    @property
    def examples(self) -> tuple[Path, ...]:
        """The files in it that have one of the suffixes, by name; links that lead nowhere are among them."""
        return self._entries[1]

    @property
    def others(self) -> tuple[Path, ...]:
        """All other files in it, by name, without hidden ones and those of file managers."""
        return self._entries[2]

    @property
    def hidden(self) -> tuple[Path, ...]:
        """Hidden files that have one of the suffixes, and hidden folders that hold such files."""
        return self._entries[3]

    def walk(self) -> Iterator["Folder"]:
        """Yield this folder and all below it, each before those in it."""
        waiting = [self]
        while waiting:
            folder = waiting.pop()
            yield folder
            waiting += reversed(folder.folders)

    @cached_property
    def holds_examples(self) -> bool:
        """Whether it holds examples at any depth."""
        return any(folder.examples for folder in self.walk())

    @cached_property
    def _entries(
        self,
    ) -> tuple[tuple["Folder", ...], tuple[Path, ...], tuple[Path, ...], tuple[Path, ...]]:
        """Read the folder.

        Raises:
            InputError: If it cannot be read, or holds links that lead nowhere or back to a folder above.
        """
        folders, examples, others, hidden = [], [], [], []
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
                rule = "must hold names in UTF-8 only"
                problems.append(Problem(str(self.path), rule, repr(entry.name), "Rename this entry."))
                continue
            target = path if _is_folder(entry) else None
            if target is None and not is_example and (saved := saved_link_target(path)) and saved.is_dir():
                target = self.links.saved[path] = saved
            if target is not None:
                real = (
                    self._follow(path, target)
                    if entry.is_symlink() or target != path
                    else self.real / entry.name
                )
                if real in (*self.above, self.real):
                    rule = "must not be a link to a folder that it lies in"
                    problems.append(Problem(str(path), rule, f"a link to '{real}'", "Remove the link."))
                else:
                    self._count_visit(path, real)
                    above = (*self.above, self.real)
                    shown = self.shown / entry.name
                    folders.append(Folder(target, shown, self.suffixes, real, above, self.links))
            elif entry.is_symlink() and not path.exists() and not is_example:
                rule = "must be a link to something that exists"
                value = f"a link to '{path.readlink()}'"
                problems.append(Problem(str(path), rule, value, "Mend the link or remove it."))
            elif is_example and (entry.is_symlink() or entry.is_file()):
                if entry.is_symlink():
                    self._follow(path, path)
                examples.append(path)
            else:
                others.append(path)
        if problems:
            raise InputError(problems)
        return tuple(folders), tuple(examples), tuple(others), tuple(hidden)

    def _has_hidden_examples(self, entry: os.DirEntry[str], is_example: bool) -> bool:
        if not _is_folder(entry):
            return is_example
        try:
            return any(path.suffix.lower() in self.suffixes for path in Path(entry.path).iterdir())
        except OSError:
            return False

    def _follow(self, link: Path, target: Path) -> Path:
        real = Path(os.path.realpath(target))
        if not real.is_relative_to(self.links.root) and link not in self.links.saved:
            self.links.outside[link] = real
        return real

    def _count_visit(self, path: Path, real: Path) -> None:
        """Count how often a folder is reached, for links can lead to it along more ways than can be gone."""
        self.links.visits[real] = self.links.visits.get(real, 0) + 1
        if self.links.visits[real] > _MOST_VISITS:
            rule = f"must not be reached along more than {_MOST_VISITS} links"
            raise InputError(Problem(str(real), rule, f"for example '{path}'", "Remove some of these links."))


def saved_link_target(file: Path) -> Path | None:
    """Return what a link leads to that was saved as a text file, as git does where links are off; None for others.

    Args:
        file: A file that holds a path and nothing else.
    """
    try:
        if not file.is_file() or not 0 < file.stat().st_size <= _LONGEST_LINK:
            return None
        written = file.read_bytes().decode()
        target = Path(os.path.normpath(file.parent / written))
        return target if "\n" not in written and target != file and target.exists() else None
    except (OSError, ValueError):  # no text, no path, or not to be read
        return None


def _scan(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise InputError(
            Problem(str(folder), "must be a folder that can be read", str(error.strerror))
        ) from error


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
