"""Short hashes of inputs, by which a finished run still knows what it was trained on."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from hf_finetune.files import replacing

__all__ = ["HASHES", "count_known", "read_hashes", "short_hash", "short_hashes", "write_hashes"]

HASHES = "examples.npz"
"""File of a run: for each split, the sorted hashes of its inputs."""
_HEX_DIGITS = 16


def short_hash(key: str) -> int:
    """Return the first 64 bits of a key: a SHA-256 as hexadecimal text."""
    return int(key[:_HEX_DIGITS], 16)


def short_hashes(keys: Sequence[str | None]) -> np.ndarray:
    """Return 64 bits of each key, sorted [examples].

    Args:
        keys: SHA-256 of inputs as hexadecimal text; None for an input that has none, which is left out.
    """
    numbers = [short_hash(key) for key in keys if key is not None]
    return np.sort(np.array(numbers, dtype=np.uint64))


def count_known(hashes: np.ndarray, known: np.ndarray) -> int:
    """Return how many of the hashes are among known ones."""
    return int(np.isin(hashes, known).sum())


def write_hashes(path: Path, hashes: Mapping[str, np.ndarray]) -> None:
    """Write the hashes of each split; nothing if there are none."""
    if hashes:
        with replacing(path) as partial, partial.open("wb") as file:
            np.savez(file, **dict(hashes))  # type: ignore[arg-type]


def read_hashes(path: Path) -> dict[str, np.ndarray] | None:
    """Read what ``write_hashes`` wrote; None if there is no such file, or it is damaged."""
    try:
        with np.load(path, allow_pickle=False) as content:
            return {split: content[split] for split in content.files}
    except (OSError, ValueError, BadZipFile):
        return None
