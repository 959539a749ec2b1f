"""Names of splits: the three that training knows, and what folders, files and datasets call them."""

import re

__all__ = ["SPLITS", "split_name", "split_of_words"]

SPLITS = ("train", "validation", "test")

_ALIASES = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "val": "validation",
    "valid": "validation",
    "dev": "validation",
    "eval": "validation",
    "evaluation": "validation",
    "test": "test",
    "testing": "test",
}


def split_name(name: str) -> str | None:
    """Return the split that a whole name stands for, whatever its case: ``val`` is ``validation``; None if none."""
    return _ALIASES.get(name.lower())


def split_of_words(name: str) -> str | None:
    """Return the one split that is among the words of a name, such as ``seg_train``; None if none or several are."""
    found = {split_name(word) for word in re.split(r"[^a-z]+", name.lower())} - {None}
    return found.pop() if len(found) == 1 else None
