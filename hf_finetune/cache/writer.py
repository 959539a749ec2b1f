"""Compute the outputs of a frozen prefix for each example, part by part, and write them to the cache."""

import logging
import shutil
import tempfile
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain, pairwise
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import torch
from filelock import FileLock
from torch.utils.data import DataLoader, Subset

from hf_finetune.cache.cache_dir import list_cache, prune_cache
from hf_finetune.cache.cut_point import CacheUnavailableError
from hf_finetune.cache.micro_batches import iter_micro_batches
from hf_finetune.cache.replay import PrefixRunner
from hf_finetune.cache.store import UNWRITABLE_ERRNOS, RowFormat, RowStore, write_rows
from hf_finetune.tasks import example_tokens
from hf_finetune.tasks.seeded_augmentation import set_epoch

__all__ = ["Collate", "PrefixWriter", "RowCost", "Version", "VersionRows", "part_ranges"]

logger = logging.getLogger(__name__)

MAX_PARTS = 16
"""Maximum number of parts of a view: processes compute them in parallel, and a killed one loses only one part."""
MIN_BATCHES_PER_PART = 8
"""Minimum number of batches in a part."""
TIMED_BATCHES = 3
"""Number of batches to measure: while one is computed, the next is prepared."""
LOG_INTERVAL_SECONDS = 30.0
"""Seconds between two log lines on the progress."""

Collate = Callable[[list[dict[str, Any]]], dict[str, torch.Tensor]]
Row = tuple[torch.Tensor, ...]


@dataclass(frozen=True)
class Version:
    """View of a dataset: all its examples in one augmented version, or the unaugmented ones of a held-out split.

    Attributes:
        examples: Dataset; ``set_epoch`` selects the view if there are several.
        name: Name of the view's cache entry.
        view: Index of the view.
    """

    examples: Any = field(compare=False)
    name: str
    view: int = 0


@dataclass(frozen=True)
class RowCost:
    """Cost of the row of one example, measured on a few batches.

    Attributes:
        compute: Seconds to prepare the example and compute the prefix.
        write: Seconds to write its row.
        read: Seconds to read its row.
        bytes: Size of its row.
    """

    compute: float
    write: float
    read: float
    bytes: int


def is_sequence(label: torch.Tensor) -> bool:
    """Return whether a label is a sequence of token ids, whose length varies.

    Args:
        label: Label of an example.
    """
    return label.ndim == 1 and not label.is_floating_point()


class VersionRows:
    """Rows of a view, read from the files of its parts.

    Args:
        stores: Parts of the view, in order.
    """

    def __init__(self, stores: Sequence[RowStore]):
        self.stores = list(stores)
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
        return self.stores[part][index - self.ends[part]]


def part_ranges(count: int, batch_size: int) -> list[range]:
    """Return the example ranges of the parts, each of whole batches; they depend on nothing but the arguments."""
    batches = -(-count // batch_size)
    parts = max(1, min(MAX_PARTS, batches // MIN_BATCHES_PER_PART))
    ends = [min(count, (number * batches // parts) * batch_size) for number in range(parts + 1)]
    return [range(begin, end) for begin, end in pairwise(ends)]


@dataclass(frozen=True)
class PrefixWriter:
    """Writer of the rows that are not in the cache yet.

    Attributes:
        runner: Runner that computes the prefix outputs.
        collate: Collate function of the examples.
        batch_size: Examples per forward pass.
        workers: Data loader workers.
        device: Device that runs the forward passes.
        folder: Root folder of all caches.
        size_limit: Maximum size in bytes of all caches in the folder together.
    """

    runner: PrefixRunner
    collate: Collate
    batch_size: int
    workers: int
    device: torch.device
    folder: Path
    size_limit: int

    def incomplete_versions(self, versions: Sequence[Version]) -> list[Version]:
        """Return the views of which at least one part is missing, each once."""
        return [version for version in dict.fromkeys(versions) if self.missing_parts(version)]

    def missing_parts(self, version: Version) -> list[range]:
        """Return the example ranges of the parts of a view that are missing."""
        return [part for folder, part in self._parts(version) if not folder.exists()]

    def measure(self, examples: Any) -> RowCost:
        """Measure the cost of a row: compute the first batches, then write and read the rows of one of them.

        The time to compute is the median of the batches, so that one pause of the machine does not count as a slow
        model.

        Raises:
            CacheUnavailableError: If the folder cannot be written to.
        """
        first = Subset(examples, range(min(TIMED_BATCHES * self.batch_size, len(examples))))
        batches, _ = self._index_batches(first, 0)
        next(self._compute_batches(first, batches))  # the first use of each kernel is slow
        compute_seconds: list[float] = []
        computed_at = perf_counter()
        for rows in self._compute_batches(first, batches):
            start, computed_at = computed_at, perf_counter()
            compute_seconds.append((computed_at - start) / len(rows))
        with _unwritable_as_unavailable(), tempfile.TemporaryDirectory(dir=self._existing_folder()) as name:
            self._write(Path(name) / "rows", iter([rows]), "timing", len(rows))
            written_at = perf_counter()
            store = RowStore(Path(name) / "rows")
            opened_at = perf_counter()
            for index in range(len(store)):
                store[index]
        count = len(rows)
        return RowCost(
            median(compute_seconds),
            (written_at - computed_at) / count,
            (perf_counter() - opened_at) / count,
            -(-store.size // count),
        )

    def compute(self, examples: Subset) -> list[Row]:
        """Return the rows of a few examples without caching them."""
        return list(chain.from_iterable(self._ordered_rows(examples, 0)))

    def free_space(self, needed: int, versions: Sequence[Version]) -> None:
        """Remove the least recently used cache entries until new rows fit.

        Args:
            needed: Bytes of the new rows.
            versions: Views that are not removed; the complete ones count towards the size limit.

        Raises:
            CacheUnavailableError: If the new rows exceed the size limit or the free disk space.
        """
        protected = {version.name for version in versions}
        complete = protected - {version.name for version in self.incomplete_versions(versions)}
        total = needed + sum(entry.bytes for entry in list_cache(self.folder) if entry.name in complete)
        if total > self.size_limit:
            raise CacheUnavailableError(
                f"the outputs would take about {total:,} bytes, and the size limit is {self.size_limit:,}"
            )
        for removed in prune_cache(self.folder, self.size_limit - total, protected):
            logger.info("Removed from the cache to stay within its size limit: %s", removed.about)
        with _unwritable_as_unavailable():
            free = shutil.disk_usage(self._existing_folder()).free
        if needed > free:
            raise CacheUnavailableError(
                f"the outputs would take about {needed:,} bytes, and the disk has {free:,} free"
            )

    def write_missing(self, versions: Sequence[Version], share: int = 0, shares: int = 1) -> None:
        """Compute and write one share of the missing parts.

        Args:
            versions: Views to complete.
            share: Index of this share, from 0.
            shares: Number of shares, one for each process that computes in parallel.

        Raises:
            CacheUnavailableError: If the rows cannot be written.
        """
        different = dict.fromkeys(versions)
        parts = [(version, *part) for version in different for part in self._parts(version)][share::shares]
        start = logged = perf_counter()
        for done, (version, folder, part) in enumerate(parts):
            if perf_counter() - logged > LOG_INTERVAL_SECONDS:
                logged = perf_counter()
                logger.info("Prefix cache: %d of %d parts after %.0f s.", done, len(parts), logged - start)
            if not folder.exists():  # existing parts are verified when they are read
                self._read_or_write_part(version, folder, part)

    def write_part(self, version: Version, part: range, rows: Iterable[Row]) -> None:
        """Write rows that were computed before, unless they are in the cache.

        Args:
            version: View that contains them.
            part: Example range of the part.
            rows: The rows.

        Raises:
            CacheUnavailableError: If they cannot be written.
        """
        self._read_or_write_part(version, self._part_folder(version, part), part, [list(rows)])

    def read(self, version: Version) -> VersionRows:
        """Return the rows of a view; a part that is missing or damaged is computed again."""
        return VersionRows(
            [self._read_or_write_part(version, folder, part) for folder, part in self._parts(version)]
        )

    def _parts(self, version: Version) -> list[tuple[Path, range]]:
        ranges = part_ranges(len(version.examples), self.batch_size)
        return [(self._part_folder(version, part), part) for part in ranges]

    def _part_folder(self, version: Version, part: range) -> Path:
        return self.folder / f"{version.name}.{part.start}-{part.stop}"

    def _read_or_write_part(
        self, version: Version, folder: Path, part: range, known: Iterable[list[Row]] | None = None
    ) -> RowStore:
        with _unwritable_as_unavailable():
            self._existing_folder()
            with FileLock(folder.with_name(f"{folder.name}.lock")):
                try:
                    store = RowStore(folder)
                except ValueError:
                    shutil.rmtree(folder, ignore_errors=True)
                else:
                    folder.touch()  # marks the part as recently used
                    return store
                boundary = f"{type(self.runner.model).__name__} before {self.runner.cut.boundary}"
                batches = (
                    self._ordered_rows(Subset(version.examples, part), version.view)
                    if known is None
                    else known
                )
                self._write(folder, iter(batches), f"{boundary}, view {version.view + 1}", len(part))
                return RowStore(folder)

    def _existing_folder(self) -> Path:
        self.folder.mkdir(parents=True, exist_ok=True)
        return self.folder

    def _write(self, folder: Path, batches: Iterator[list[Row]], about: str, count: int) -> None:
        first = next(batches)
        by_token = [*(shape.has_tokens for shape in self.runner.cut.shapes), is_sequence(first[0][-1])]
        formats = [
            RowFormat(tuple(tensor.shape[varying:]), str(tensor.dtype).removeprefix("torch."), varying)
            for tensor, varying in zip(first[0], by_token, strict=True)
        ]
        write_rows(
            folder, chain.from_iterable(chain([first], batches)), formats, {"about": about, "examples": count}
        )

    def _ordered_rows(self, examples: Subset, view: int) -> Iterator[list[Row]]:
        """Yield lists of rows in the order of the examples; the label is the last value of a row."""
        batches, window = self._index_batches(examples, view)
        computed = self._compute_batches(examples, batches)
        for begin in range(0, len(batches), window):
            rows: dict[int, Row] = {}
            for indices in batches[begin : begin + window]:
                rows.update(zip(indices, next(computed), strict=True))
            yield [rows[index] for index in sorted(rows)]

    def _index_batches(self, examples: Subset, view: int) -> tuple[list[list[int]], int]:
        """Return the indices of the examples of each batch, and after how many batches none is left out.

        Texts of similar length are in the same batch. They are sorted within a few consecutive batches only, so that
        few rows wait for others before they are written.
        """
        set_epoch(examples, view)
        order, window = list(range(len(examples))), 1
        if example_tokens(examples[0]):
            window = MIN_BATCHES_PER_PART
            size = window * self.batch_size
            order.sort(key=lambda index: (index // size, example_tokens(examples[index])))
        begins = range(0, len(order), self.batch_size)
        return [order[begin : begin + self.batch_size] for begin in begins], window

    def _compute_batches(self, examples: Subset, batches: list[list[int]]) -> Iterator[list[Row]]:
        """Yield the rows of each batch."""
        loader = DataLoader(
            examples, batch_sampler=batches, collate_fn=self.collate, num_workers=self.workers
        )
        for batch in _prefetch(loader):
            labels = batch.pop("labels")
            moved = {key: value.to(self.device) for key, value in batch.items()}
            outputs = [
                self.runner.collect(micro_batch) for micro_batch in iter_micro_batches(moved, self.device)
            ]
            values = [torch.cat(chunks) for chunks in zip(*outputs, strict=True)]
            mask = batch["attention_mask"].bool() if "attention_mask" in batch else None
            columns = [
                [row[known] for row, known in zip(value.cpu(), mask, strict=True)]
                if shape.has_tokens and mask is not None
                else value.cpu()
                for value, shape in zip(values, self.runner.cut.shapes, strict=True)
            ]
            yield list(zip(*columns, labels, strict=True))


def _prefetch(batches: Iterable[Any]) -> Iterator[Any]:
    """Yield batches while a thread prepares the next one.

    The thread has the random number generator to itself, since a frozen prefix draws no random numbers.
    """
    iterator = iter(batches)
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(next, iterator, None)
        while (batch := future.result()) is not None:
            future = pool.submit(next, iterator, None)
            yield batch


@contextmanager
def _unwritable_as_unavailable() -> Iterator[None]:
    """Raise ``CacheUnavailableError`` in place of an ``OSError`` that prevents writing to the cache."""
    try:
        yield
    except OSError as error:
        if error.errno not in UNWRITABLE_ERRNOS:
            raise
        raise CacheUnavailableError(f"the outputs cannot be cached: {error.strerror}") from error
