"""Registry of named things, such as kinds of labels or tasks: an unknown name is an error that lists the known ones."""

from collections.abc import Iterator, Mapping
from typing import Generic, Protocol, TypeVar

__all__ = ["Registry"]


class Named(Protocol):
    """Anything with a name."""

    @property
    def name(self) -> str:
        """Unique name."""


Entry = TypeVar("Entry", bound=Named)


class Registry(Mapping[str, Entry], Generic[Entry]):
    """Entries by name, in the order of their registration.

    Args:
        kind: Singular noun for an entry in error messages, such as ``task``.
    """

    def __init__(self, kind: str):
        self.kind = kind
        self._entries: dict[str, Entry] = {}

    def __getitem__(self, name: str) -> Entry:
        if name not in self._entries:
            raise ValueError(f"unknown {self.kind} {name!r}; known: {', '.join(self._entries)}")
        return self._entries[name]

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, entry: Entry) -> None:
        """Register an entry.

        Raises:
            ValueError: If its name is taken.
        """
        if entry.name in self._entries:
            raise ValueError(f"the {self.kind} {entry.name!r} is registered already")
        self._entries[entry.name] = entry

    def remove(self, name: str) -> None:
        """Remove an entry, for tests that register one.

        Raises:
            ValueError: If there is none of this name.
        """
        del self._entries[self[name].name]
