"""Split names: train, validation and test, and their aliases in folders, files and datasets."""

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
    """Return the split that a name denotes, ignoring case: ``val`` is ``validation``; None for any other name."""
    return _ALIASES.get(name.lower())


def split_of_words(name: str) -> str | None:
    """Return the only split among the words of a name such as ``seg_train``; None if there is none or several."""
    splits = {split_name(word) for word in re.split(r"[^a-z]+", name.lower())} - {None}
    return splits.pop() if len(splits) == 1 else None
