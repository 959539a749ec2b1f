"""Registry of named entries, such as label types or tasks; the error for an unknown name lists the known names."""

from collections.abc import Iterator, Mapping
from importlib.metadata import entry_points
from typing import Any, Generic, Protocol, TypeVar

from pydantic_core import PydanticKnownError, core_schema

__all__ = ["RegisteredName", "Registry", "installed_entries"]


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
        self.closed = ""
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
            ValueError: If its name is taken, or if the registry is closed.
        """
        if self.closed:
            raise ValueError(f"the {self.kind} {entry.name!r} is registered too late: {self.closed}")
        if entry.name in self._entries:
            raise ValueError(f"the {self.kind} {entry.name!r} is registered already")
        self._entries[entry.name] = entry

    def close(self, reason: str) -> None:
        """Close the registry: later calls of ``add`` fail with this reason."""
        self.closed = reason

    def remove(self, name: str) -> None:
        """Remove an entry, for tests that register one.

        Raises:
            ValueError: If there is no entry with this name.
        """
        del self._entries[self[name].name]


def installed_entries(group: str) -> Iterator[Any]:
    """Yield the objects that installed packages declare as entry points of a group, in the order of their names.

    Args:
        group: Name of the group in the ``pyproject.toml`` of the packages, such as ``hf_finetune.tasks``.

    Raises:
        ImportError: If an object cannot be imported.
    """
    for point in sorted(entry_points(group=group), key=lambda point: point.name):
        try:
            yield point.load()
        except (ImportError, AttributeError) as error:
            package = f" of the package {point.dist.name}" if point.dist else ""
            raise ImportError(
                f"The entry point {point.name} = {point.value}{package} cannot be imported: {error}. "
                "Repair or uninstall the package."
            ) from error


class RegisteredName:
    """Annotation of a recipe field whose value is a registered name; names registered later are accepted too.

    The field behaves like a ``Literal`` of the names, in error messages and in the JSON Schema.

    Args:
        registry: Registry of the names.
        extra_names: Other valid names, listed first in messages.
    """

    def __init__(self, registry: Registry[Any], *extra_names: str):
        self.registry = registry
        self.extra_names = extra_names

    @property
    def names(self) -> list[str]:
        """Valid names."""
        return [*self.extra_names, *self.registry]

    def _check(self, value: Any) -> Any:
        if value in self.names:
            return value
        *first, last = map(repr, self.names)
        expected = f"{', '.join(first)} or {last}" if first else last
        raise PydanticKnownError("literal_error", {"expected": expected})

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> core_schema.CoreSchema:
        return core_schema.no_info_before_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(self, schema: core_schema.CoreSchema, handler: Any) -> dict[str, Any]:
        names = self.names
        return {"enum": names, "type": "string"} if len(names) > 1 else {"const": names[0], "type": "string"}
