"""Store of tensor rows in files: written once in sequence, read row by row in any order."""

import errno
import json
import os
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hf_finetune.files import atomic_folder

__all__ = ["UNWRITABLE_ERRNOS", "RowFormat", "RowStore", "write_rows"]

META = "meta.json"
OFFSETS = "offsets.npy"
UNWRITABLE_ERRNOS = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
    errno.EEXIST,
    errno.ENOTDIR,
)
"""Error numbers after which a run continues without a cache: the disk is full, or the path cannot be written to."""
CHUNK_BYTES = 1 << 24  # bytes read at a time to compute a checksum


@dataclass(frozen=True)
class RowFormat:
    """Format of the rows in one file.

    Attributes:
        sizes: Shape of a row; for rows of varying length, shape of one element.
        dtype: Name of the torch dtype: ``float32``.
        varies: Whether the length of the rows varies.
    """

    sizes: tuple[int, ...]
    dtype: str
    varies: bool


def write_rows(
    folder: Path,
    rows: Iterable[Sequence[torch.Tensor]],
    formats: Sequence[RowFormat],
    meta: Mapping[str, Any],
) -> None:
    """Write rows to a folder atomically: it exists only once it is complete.

    Args:
        folder: Folder to write; an existing one is replaced.
        rows: Rows, each with one tensor per format.
        formats: Formats of the files, one per file.
        meta: Description of the rows, stored next to them.

    Raises:
        OSError: If the files cannot be written, for example because the disk is full.
    """
    with atomic_folder(folder) as partial:
        partial.mkdir(parents=True, exist_ok=True)
        checksums, offsets = [0] * len(formats), [[0] for _ in formats]
        files = [(partial / f"{number}.bin").open("wb") for number in range(len(formats))]
        try:
            for row in rows:
                for number, (file, tensor) in enumerate(zip(files, row, strict=True)):
                    raw = bytes(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
                    file.write(raw)
                    checksums[number] = zlib.crc32(raw, checksums[number])
                    offsets[number].append(offsets[number][-1] + len(raw))
        finally:
            for file in files:
                file.close()
        np.save(partial / OFFSETS, np.array(offsets, dtype=np.int64))
        content = {
            **meta,
            "formats": [asdict(form) for form in formats],
            "crc32": [*checksums, _checksum(partial / OFFSETS)],
        }
        sealed = {**content, "seal": _meta_checksum(content)}
        (partial / META).write_text(json.dumps(sealed), encoding="utf-8")


class RowStore:
    """Rows written by ``write_rows``, read from the files on access so that they do not fill the memory.

    Args:
        folder: Folder of the rows.

    Raises:
        ValueError: If a file is missing, cut off or changed.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        try:
            self.meta = json.loads((folder / META).read_text(encoding="utf-8"))
            seal = self.meta.pop("seal")
            self.formats = [
                RowFormat(tuple(form["sizes"]), form["dtype"], form["varies"])
                for form in self.meta["formats"]
            ]
            self.offsets = np.load(folder / OFFSETS)
            intact = _is_intact(folder, self.meta, seal)
        except (OSError, AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{folder} is not a complete cache entry: {error}") from error
        if not intact:
            raise ValueError(f"{folder} was modified after it was written.")
        # The files stay open, so that they can still be read after they were deleted.
        self.files: list[int] | None = self._open()

    def __len__(self) -> int:
        return self.offsets.shape[1] - 1

    @property
    def size(self) -> int:
        """Bytes of all rows."""
        return int(self.offsets[:, -1].sum())

    def __getitem__(self, index: int) -> tuple[torch.Tensor, ...]:
        """Return a row, one tensor per format; the first dimension of a row of varying length is its length."""
        if self.files is None:
            self.files = self._open()
        tensors = []
        for file, form, offsets in zip(self.files, self.formats, self.offsets, strict=True):
            begin, end = int(offsets[index]), int(offsets[index + 1])
            raw = bytearray(os.pread(file, end - begin, begin))
            tensor = torch.frombuffer(raw, dtype=getattr(torch, form.dtype)) if raw else torch.empty(0)
            tensors.append(tensor.view((-1, *form.sizes) if form.varies else form.sizes))
        return tuple(tensors)

    def _open(self) -> list[int]:
        return [os.open(self.folder / f"{number}.bin", os.O_RDONLY) for number in range(len(self.formats))]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "files": None}

    def __del__(self) -> None:
        for file in getattr(self, "files", None) or ():
            os.close(file)


def _is_intact(folder: Path, meta: Mapping[str, Any], seal: int) -> bool:
    """Return whether every file has the checksum that it had when it was written."""
    names = [*(f"{number}.bin" for number in range(len(meta["formats"]))), OFFSETS]
    return seal == _meta_checksum(meta) and [_checksum(folder / name) for name in names] == meta["crc32"]


def _meta_checksum(content: Mapping[str, Any]) -> int:
    return zlib.crc32(json.dumps(content, sort_keys=True).encode())


def _checksum(path: Path) -> int:
    total = 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            total = zlib.crc32(chunk, total)
    return total
