"""Hashes, lengths and checks of the texts of a dataset."""

import hashlib
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from pyarrow import compute

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = ["TEXT_COLUMNS", "TextCheck", "hash_texts", "text_columns", "text_lengths"]

TEXT_COLUMNS = ("text", "text_pair", "query", "candidate")
"""Columns that contain texts: those of texts and pairs, and those of queries with candidates."""


def text_columns(names: Sequence[str]) -> list[str]:
    """Return the columns of the texts of an example: one, or two for pairs.

    Args:
        names: Columns of a dataset.
    """
    return [name for name in TEXT_COLUMNS if name in names]


def hash_texts(dataset: "Dataset") -> tuple[list[str], list[str | None]]:
    """Return two hashes of each example.

    Args:
        dataset: Dataset with the column ``text``, and ``text_pair`` for pairs.

    Returns:
        SHA-256 of the exact texts, and of the texts without differences of case and white space; the latter is None
        for empty texts.
    """
    exact: list[str] = []
    keys: list[str | None] = []
    for texts in _texts(dataset):
        exact.append(_hash_texts(texts, lambda text: text))
        keys.append(_hash_texts(texts, _normalize) if any(texts) else None)
    return exact, keys


class TextCheck:
    """Check that no text is empty."""

    def faults(self, dataset: "Dataset", ids: Sequence[str]) -> list[str | None]:
        """Return a reason for each example with an empty text; None for the others."""
        names = text_columns(dataset.column_names)
        faults: list[str | None] = []
        for texts in _texts(dataset):
            empty = [name for name, text in zip(names, texts, strict=True) if not (text or "").strip()]
            faults.append(f"an empty {' and '.join(empty)}" if empty else None)
        return faults

    def notes(self) -> list[str]:
        """Return no messages."""
        return []


def _texts(dataset: "Dataset") -> Iterator[tuple[str | None, ...]]:
    """Yield the texts of each example: one, or two for pairs."""
    names = text_columns(dataset.column_names)
    for batch in dataset.select_columns(names).iter(batch_size=1000):
        yield from zip(*(batch[name] for name in names), strict=True)


def text_lengths(dataset: "Dataset") -> np.ndarray:
    """Return the number of characters of each example [examples]; both texts of a pair are counted."""
    columns = text_columns(dataset.column_names)
    table = dataset.select_columns(columns).with_format("arrow")[:]
    lengths = [compute.utf8_length(table.column(name)).fill_null(0).to_numpy() for name in columns]
    total: np.ndarray = np.sum(lengths, axis=0)
    return total


def _hash_texts(texts: Sequence[str | None], form: Callable[[str], str]) -> str:
    """Return the SHA-256 of a text or pair. Lengths are hashed too, so that the hash depends on where a text ends."""
    digest = hashlib.sha256()
    for text in texts:
        encoded = form(text or "").encode("utf-8", "surrogatepass")
        digest.update(f"{len(encoded)}:".encode() + encoded)
    return digest.hexdigest()


def _normalize(text: str) -> str:
    return " ".join(unicodedata.normalize("NFC", text).casefold().split())
