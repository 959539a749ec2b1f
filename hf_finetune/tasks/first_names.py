"""The first names of a kind, for notes that would be too long with all of them."""

from dataclasses import dataclass, field

from hf_finetune.errors import join_words

__all__ = ["FirstNames"]

_MAX_NAMES = 8


@dataclass
class FirstNames:
    """First names of a kind, and the number of all, in constant memory.

    Attributes:
        first: The first names.
        count: Number of all names.
    """

    first: list[str] = field(default_factory=list)
    count: int = 0

    def add(self, name: str) -> None:
        """Add a name.

        Args:
            name: The name.
        """
        self.count += 1
        if len(self.first) < _MAX_NAMES:
            self.first.append(name)

    def __str__(self) -> str:
        more = self.count - len(self.first)
        return join_words(self.first) + (f" and {more:,} more" if more else "")
