"""Short hashes of inputs, stored with a run to recognize its training examples later."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from hf_finetune.files import atomic_file

__all__ = ["HASHES", "count_known", "read_hashes", "short_hash", "short_hashes", "write_hashes"]

HASHES = "examples.npz"
"""File in a run's folder that stores the sorted input hashes of each split."""
_HEX_DIGITS = 16


def short_hash(key: str) -> int:
    """Return the first 64 bits of a hexadecimal SHA-256 digest as an integer."""
    return int(key[:_HEX_DIGITS], 16)


def short_hashes(keys: Sequence[str | None]) -> np.ndarray:
    """Return the first 64 bits of each key.

    Args:
        keys: SHA-256 digests of inputs, in hexadecimal; None for an input without a digest, which is skipped.

    Returns:
        Sorted uint64 array [examples].
    """
    numbers = [short_hash(key) for key in keys if key is not None]
    return np.sort(np.array(numbers, dtype=np.uint64))


def count_known(hashes: np.ndarray, known: np.ndarray) -> int:
    """Count the hashes that are in ``known``.

    Args:
        hashes: Sorted hashes of one split [examples].
        known: Sorted hashes to look up [examples].

    Returns:
        Number of ``hashes`` that are in ``known``.
    """
    return int(np.isin(hashes, known).sum())


def write_hashes(path: Path, hashes: Mapping[str, np.ndarray]) -> None:
    """Write the hashes of each split to a file; write nothing if there are none.

    Args:
        path: File to write or replace.
        hashes: Sorted uint64 array of each split, by split name.
    """
    if hashes:
        with atomic_file(path) as partial, partial.open("wb") as file:
            np.savez(file, **dict(hashes))  # type: ignore[arg-type]


def read_hashes(path: Path) -> dict[str, np.ndarray] | None:
    """Read the hashes written by ``write_hashes``; None if the file is missing or damaged.

    Args:
        path: File written by ``write_hashes``.

    Returns:
        Sorted uint64 array of each split, by split name; None if the file is missing or damaged.
    """
    try:
        with np.load(path, allow_pickle=False) as content:
            return {split: content[split] for split in content.files}
    except (OSError, ValueError, BadZipFile):
        return None
