"""Stored examples: their hashes, and whether they can be read."""

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from hf_finetune.files import is_valid_path

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = ["ReadCheck", "hash_file", "hash_rows", "map_files"]

_FILES_AT_ONCE = 16  # undecoded files in memory
_THREADS = min(8, os.cpu_count() or 1)

Result = TypeVar("Result")


def map_files(
    dataset: "Dataset", column: str, feature: Any, function: Callable[[dict[str, Any]], Result]
) -> Iterator[Result]:
    """Apply a function to each undecoded file and yield its results in order, with few files in memory at a time.

    Args:
        dataset: Dataset with the column.
        column: Column of the files.
        feature: Feature type of the undecoded column.
        function: Function of ``{"bytes": ..., "path": ...}``, called from several threads.
    """
    undecoded = dataset.select_columns([column]).cast_column(column, feature)
    with ThreadPoolExecutor(_THREADS) as pool:
        for batch in undecoded.iter(batch_size=_FILES_AT_ONCE):
            yield from pool.map(function, batch[column])


def hash_file(stored: Mapping[str, Any] | None) -> str | None:
    """Return the SHA-256 of an undecoded file, or None if there is no readable file."""
    content, path = (stored or {}).get("bytes"), (stored or {}).get("path")
    if content is not None:
        return hashlib.sha256(content).hexdigest()
    if path is None or not is_valid_path(path):
        return None
    try:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None


def hash_rows(dataset: "Dataset", columns: Sequence[str]) -> list[str]:
    """Return the SHA-256 of the values of each row."""
    rows = zip(*(dataset[name][:] for name in columns), strict=True)
    return [hashlib.sha256(json.dumps(row, default=str).encode()).hexdigest() for row in rows]


class ReadCheck:
    """Check that examples can be read: each is decoded once, as in training.

    Args:
        read: Function of a row of a dataset that raises an exception if it cannot be read.
    """

    def __init__(self, read: Callable[[Mapping[str, Any]], Any]):
        self.read = read

    def faults(self, dataset: "Dataset", ids: Sequence[str]) -> list[str | None]:
        """Return the reason why each example cannot be read; None if it can."""
        return [self._fault(dataset, index) for index in range(len(ids))]

    def _fault(self, dataset: "Dataset", index: int) -> str | None:
        try:
            self.read(dataset[index])
        except FileNotFoundError:
            return "no such file"
        except Exception as error:  # decoders raise exceptions of any class for damaged files
            return f"a damaged file ({type(error).__name__}: {error})"
        return None

    def notes(self) -> list[str]:
        """Return no messages."""
        return []
