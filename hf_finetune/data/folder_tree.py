"""Folders as a tree that is read on demand: links are followed, loops refused, system files passed over."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from hf_finetune.errors import InputError, Problem

__all__ = ["Folder", "OutsideLinks"]

# Written by file managers and archivers, never by a person.
_SYSTEM = frozenset({"thumbs.db", "ehthumbs.db", "desktop.ini", "__macosx", "@eadir", "$recycle.bin"})
_MOST_VISITS = 1000


@dataclass
class OutsideLinks:
    """Links that were followed to a place outside the folder that a tree begins with.

    Attributes:
        root: That folder, without links.
        targets: The place that each of these links leads to.
        visits: How often each folder below a link was read, by its path without links.
    """

    root: Path
    targets: dict[Path, Path] = field(default_factory=dict)
    visits: dict[Path, int] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Folder:
    """A folder whose entries are read when they are first needed.

    Attributes:
        path: Its path, as it is reached.
        suffixes: Endings of the files that are examples, in lower case, with their dot.
        real: Its path without links.
        above: The folders that it lies in, from the root of the tree on, without links.
        links: The links that lead out of the tree.
    """

    path: Path
    suffixes: frozenset[str]
    real: Path
    above: tuple[Path, ...]
    links: OutsideLinks

    @staticmethod
    def open(path: Path, suffixes: frozenset[str]) -> "Folder":
        """Return the tree that begins at a folder, which may itself be a link."""
        real = Path(os.path.realpath(path))
        return Folder(path, suffixes, real, (), OutsideLinks(real))

    @property
    def name(self) -> str:
        """The last part of its path."""
        return self.path.name

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
            real = self._follow(path) if entry.is_symlink() else self.real / entry.name
            if _is_folder(entry):
                if entry.is_symlink() and real in (*self.above, self.real):
                    rule = "must not be a link to a folder that it lies in"
                    problems.append(Problem(str(path), rule, f"a link to '{real}'", "Remove the link."))
                else:
                    self._count_visit(path, real)
                    folders.append(Folder(path, self.suffixes, real, (*self.above, self.real), self.links))
            elif entry.is_symlink() and not path.exists() and not is_example:
                rule = "must be a link to something that exists"
                target = f"a link to '{path.readlink()}'"
                problems.append(Problem(str(path), rule, target, "Mend the link or remove it."))
            elif is_example and (entry.is_symlink() or entry.is_file()):
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

    def _follow(self, link: Path) -> Path:
        real = Path(os.path.realpath(link))
        if not real.is_relative_to(self.links.root):
            self.links.targets[link] = real
        return real

    def _count_visit(self, path: Path, real: Path) -> None:
        """Count how often a folder is reached, for links can lead to it along more ways than can be gone."""
        self.links.visits[real] = self.links.visits.get(real, 0) + 1
        if self.links.visits[real] > _MOST_VISITS:
            rule = f"must not be reached along more than {_MOST_VISITS} links"
            raise InputError(Problem(str(real), rule, f"for example '{path}'", "Remove some of these links."))


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
