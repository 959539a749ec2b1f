"""Compute what a frozen prefix gives for each example, part by part, and keep it."""

import logging
import shutil
import tempfile
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, pairwise
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import torch
from filelock import FileLock
from torch.utils.data import DataLoader, Subset

from hf_finetune.cache.cache_dir import prune_cache
from hf_finetune.cache.cut_point import CacheUnavailableError, OutputShape
from hf_finetune.cache.micro_batches import in_pieces
from hf_finetune.cache.replay import PrefixPass
from hf_finetune.cache.store import CANNOT_BE_KEPT, RowFormat, RowStore, write_rows
from hf_finetune.data.seeded_augmentation import set_epoch

__all__ = ["Collate", "RowCost", "RowMaker", "Version", "VersionRows", "part_ranges", "varies"]

logger = logging.getLogger(__name__)

PARTS = 16
"""Most parts of a version: several processes compute them side by side, and one that is killed loses one part only."""
BATCHES = 8
"""Least batches of a part."""
TRIAL = 3
"""Batches that are measured: while one computes, the next is prepared."""
PATIENCE = 30.0
"""Seconds between two lines that say how far it is."""

Collate = Callable[[list[dict[str, Any]]], dict[str, torch.Tensor]]
Row = tuple[torch.Tensor, ...]


@dataclass(frozen=True)
class Version:
    """One version of some examples.

    Attributes:
        examples: Give a version by ``set_epoch``, where they have several.
        name: Of the files.
        view: Which version.
    """

    examples: Any
    name: str
    view: int = 0


@dataclass(frozen=True)
class RowCost:
    """What the row of one example costs, measured on a batch.

    Attributes:
        compute: Seconds to prepare the example and compute the prefix.
        write: Seconds to write its row.
        read: Seconds to read it back.
        bytes: Of its row.
    """

    compute: float
    write: float
    read: float
    bytes: int


class VersionRows:
    """The rows of a version, from the files of its parts.

    Args:
        stores: The parts, in their order.
        column: The only value of each row to read, besides its label; None for all of them.
    """

    def __init__(self, stores: Sequence[RowStore], column: int | None = None):
        self.stores, self.column = list(stores), column
        self.ends = [0]
        for store in self.stores:
            self.ends.append(self.ends[-1] + len(store))

    @property
    def size(self) -> int:
        """Bytes of all rows."""
        return sum(store.size for store in self.stores)

    def __len__(self) -> int:
        return self.ends[-1]

    def __getitem__(self, index: int) -> Row:
        part = bisect_right(self.ends, index) - 1
        row = self.stores[part][index - self.ends[part]]
        return row if self.column is None else (row[self.column], row[-1])


def part_ranges(count: int, batch_size: int) -> list[range]:
    """Divide examples into parts of whole batches, in a way that depends on nothing else."""
    batches = -(-count // batch_size)
    parts = max(1, min(PARTS, batches // BATCHES))
    ends = [min(count, (number * batches // parts) * batch_size) for number in range(parts + 1)]
    return [range(begin, end) for begin, end in pairwise(ends)]


@dataclass(frozen=True)
class RowMaker:
    """Computes the rows that are not there yet.

    Attributes:
        entry: Gives what the prefix makes.
        collate: Makes a batch of examples.
        batch_size: Examples per forward pass.
        workers: Data loader processes.
        device: Where to compute.
        folder: Of all caches.
        size_limit: Bytes that all caches in the folder may take together.
    """

    entry: PrefixPass
    collate: Collate
    batch_size: int
    workers: int
    device: torch.device
    folder: Path
    size_limit: int

    def missing(self, versions: Sequence[Version]) -> list[Version]:
        """List the versions of which a part is not there."""
        return [
            version for version in versions if not all(folder.exists() for folder, _ in self._parts(version))
        ]

    def measure(self, examples: Any) -> RowCost:
        """Compute the first batches, write the rows of one and read them back, and see how long that takes.

        Of the batches the median counts, so that a machine that pauses once does not pass for a slow model.

        Raises:
            CacheUnavailableError: If nothing can be written.
        """
        first = Subset(examples, range(min(TRIAL * self.batch_size, len(examples))))
        next(self._batches(first, 0))  # the first use of each kernel is slow
        each: list[float] = []
        computed = perf_counter()
        for rows in self._batches(first, 0):
            begun, computed = computed, perf_counter()
            each.append((computed - begun) / len(rows))
        with _refusing(), tempfile.TemporaryDirectory(dir=self._existing_folder()) as name:
            self._write(Path(name) / "rows", iter([rows]), "a trial", len(rows))
            written = perf_counter()
            store = RowStore(Path(name) / "rows")
            opened = perf_counter()
            for index in range(len(store)):
                store[index]
        count = len(rows)
        return RowCost(
            median(each),
            (written - computed) / count,
            (perf_counter() - opened) / count,
            -(-store.size // count),
        )

    def compute(self, examples: Subset) -> list[Row]:
        """Return the rows of a few examples, which are not kept."""
        return list(chain.from_iterable(self._batches(examples, 0)))

    def make_room(self, needed: int, versions: Sequence[Version]) -> None:
        """Remove what was least recently used of others, so that these versions fit.

        Raises:
            CacheUnavailableError: If they do not fit into the size limit, or on the disk.
        """
        if needed > self.size_limit:
            raise CacheUnavailableError(
                f"what it gives takes about {needed:,} bytes, and the size limit is {self.size_limit:,}"
            )
        spared = {version.name for version in versions}
        for removed in prune_cache(self.folder, self.size_limit - needed, spared):
            logger.info("Removed from the cache, to stay below its size limit: %s", removed.about)
        with _refusing():
            free = shutil.disk_usage(self._existing_folder()).free
        if needed > free:
            raise CacheUnavailableError(
                f"what it gives takes about {needed:,} bytes, and the disk has {free:,}"
            )

    def make(self, versions: Sequence[Version], share: int = 0, shares: int = 1) -> None:
        """Compute a share of the parts that are not kept.

        Args:
            versions: Of which the rows are wanted.
            share: Number of this share, from 0 on.
            shares: Number of processes that compute side by side.

        Raises:
            CacheUnavailableError: If they cannot be kept.
        """
        parts = [(version, *part) for version in versions for part in self._parts(version)][share::shares]
        begun = told = perf_counter()
        for done, (version, folder, part) in enumerate(parts):
            if perf_counter() - told > PATIENCE:
                told = perf_counter()
                logger.info("Frozen layers: %d of %d parts after %.0f s.", done, len(parts), told - begun)
            if not folder.exists():  # what is there is checked when it is read
                self._make_part(version, folder, part)

    def read(self, version: Version) -> VersionRows:
        """Open the rows of a version that was made; a part that was damaged since is made anew."""
        return VersionRows([self._make_part(version, folder, part) for folder, part in self._parts(version)])

    def open(self, version: Version) -> VersionRows | None:
        """Open the rows of a version as ``read`` does, but make none: None if a part is missing or was damaged."""
        try:
            return VersionRows([RowStore(folder) for folder, _ in self._parts(version)])
        except ValueError:
            return None

    def _parts(self, version: Version) -> list[tuple[Path, range]]:
        ranges = part_ranges(len(version.examples), self.batch_size)
        # The range is part of the name: with another batch size, parts begin and end at other examples.
        return [(self.folder / f"{version.name}.{part.start}-{part.stop}", part) for part in ranges]

    def _make_part(self, version: Version, folder: Path, part: range) -> RowStore:
        with _refusing():
            self._existing_folder()
            with FileLock(folder.with_name(f"{folder.name}.lock")):
                try:
                    found = RowStore(folder)
                except ValueError:
                    shutil.rmtree(folder, ignore_errors=True)
                else:
                    folder.touch()  # it is used: others are older
                    return found
                boundary = f"{type(self.entry.model).__name__} up to {self.entry.cut.boundary}"
                batches = self._batches(Subset(version.examples, part), version.view)
                self._write(folder, batches, f"{boundary}, version {version.view + 1}", len(part))
                return RowStore(folder)

    def _existing_folder(self) -> Path:
        self.folder.mkdir(parents=True, exist_ok=True)
        return self.folder

    def _write(self, folder: Path, batches: Iterator[list[Row]], about: str, count: int) -> None:
        first = next(batches)
        by_token = [*map(varies, self.entry.cut.shapes), False]
        formats = [
            RowFormat(tuple(tensor.shape[varying:]), str(tensor.dtype).removeprefix("torch."), varying)
            for tensor, varying in zip(first[0], by_token, strict=True)
        ]
        write_rows(
            folder, chain.from_iterable(chain([first], batches)), formats, {"about": about, "examples": count}
        )

    def _batches(self, examples: Subset, view: int) -> Iterator[list[Row]]:
        """Compute rows in the order of the examples, a list for each batch; the label is the last of a row."""
        set_epoch(examples, view)
        loader = DataLoader(examples, self.batch_size, collate_fn=self.collate, num_workers=self.workers)
        for batch in _one_ahead(loader):
            labels = batch.pop("labels")
            moved = {key: value.to(self.device) for key, value in batch.items()}
            pieces = [self.entry.collect(piece) for piece in in_pieces(moved, self.device)]
            values = [torch.cat(each) for each in zip(*pieces, strict=True)]
            mask = batch["attention_mask"].bool() if "attention_mask" in batch else None
            columns = [
                [row[known] for row, known in zip(value.cpu(), mask, strict=True)]
                if varies(shape) and mask is not None
                else value.cpu()
                for value, shape in zip(values, self.entry.cut.shapes, strict=True)
            ]
            yield list(zip(*columns, labels, strict=True))


def _one_ahead(batches: Iterable[Any]) -> Iterator[Any]:
    """Prepare the next batch in a thread while one is computed. No chance is drawn meanwhile: the prefix is frozen."""
    following = iter(batches)
    with ThreadPoolExecutor(1) as pool:
        promised = pool.submit(next, following, None)
        while (batch := promised.result()) is not None:
            promised = pool.submit(next, following, None)
            yield batch


@contextmanager
def _refusing() -> Iterator[None]:
    """Turn what hinders writing into the reason why nothing is kept."""
    try:
        yield
    except OSError as error:
        if error.errno not in CANNOT_BE_KEPT:
            raise
        raise CacheUnavailableError(f"what it gives cannot be kept: {error.strerror}") from error


def varies(shape: OutputShape) -> bool:
    """Say whether a value has a row for each token."""
    return "tokens" in shape.sizes
