"""Cache of decoded images: stored before augmentation, or as final model inputs if there is no augmentation.

Model inputs are the same bit for bit with and without the cache: very large images are reduced in both cases.
"""

import hashlib
import json
import logging
import shutil
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from filelock import FileLock
from torch.utils.data import Subset

from hf_finetune.cache.cache_dir import list_cache, prune_cache
from hf_finetune.cache.store import UNWRITABLE_ERRNOS, RowFormat, RowStore, write_rows
from hf_finetune.distributed import main_process_first
from hf_finetune.tasks.examples import DecodedForm, Inputs
from hf_finetune.tasks.modality import Modality
from hf_finetune.tasks.seeded_augmentation import SeededExamples

__all__ = ["DecodeReport", "decode_once", "reason_not_to_cache"]

logger = logging.getLogger(__name__)

LIBRARIES = ("datasets", "pillow", "timm", "torch", "torchvision", "transformers", "hf-finetune")
CACHE_FORMAT = 2  # version of the file format; a new version invalidates all existing entries
NUM_TIMED = 8  # number of examples whose decoding and reading is timed
MIN_GAIN = 0.1  # fraction of the decoding time that the cache must save to be written

Row = tuple[torch.Tensor, ...]


@dataclass(frozen=True)
class DecodeReport:
    """Result of ``decode_once``, for the run log.

    Attributes:
        used: Whether the examples of at least one split are read from the cache.
        reason: Reasons why splits are not cached; empty if all are.
        bytes: Size of the cache entries.
        seconds: Time to decide, and to write or check the cache entries.
    """

    used: bool
    reason: str = ""
    bytes: int = 0
    seconds: float = 0.0


class _NotCachedError(Exception):
    """Raised if the images of a split cannot be cached, or if that is not worthwhile; the message is the reason."""


def reason_not_to_cache(
    decode_seconds: float, read_seconds: float, passes: int, bytes: int, free_bytes: int, size_limit: int
) -> str:
    """Return the reason why a cache of decoded examples is not worthwhile; empty if it is.

    Args:
        decode_seconds: Time to produce an example from its file.
        read_seconds: Time to produce an example from the cache; also used as the time to write and to check it.
        passes: Number of times that each example will be read.
        bytes: Size of the cache entry.
        free_bytes: Free space on the disk, in bytes.
        size_limit: Largest allowed size of the cache entry, in bytes.
    """
    if reason := _too_large(bytes, free_bytes, size_limit):
        return reason
    uncached = passes * decode_seconds
    cached = decode_seconds + (passes + 2) * read_seconds
    if cached <= (1 - MIN_GAIN) * uncached:
        return ""
    passes_text = "1 pass" if passes == 1 else f"{passes} passes"
    return (
        f"decoding takes {1e3 * decode_seconds:.2g} ms per example and reading from the cache "
        f"{1e3 * read_seconds:.2g} ms, which does not pay off for {passes_text}"
    )


def _too_large(size: int, free: int, limit: int) -> str:
    if size > limit:
        return f"about {size:,} bytes are needed, but only {limit:,} remain within the size limit"
    if size > free:
        return f"about {size:,} bytes are needed, but the disk has only {free:,} free"
    return ""


def decode_once(
    inputs: Inputs,
    modality: Modality,
    *,
    train_passes: int,
    validation_passes: int,
    folder: Path,
    size_limit: int,
    sources: Mapping[str, str],
    always: bool = False,
) -> tuple[Inputs, DecodeReport]:
    """Decode the examples of a run once into a cache, if that is faster than in each epoch, or use existing entries.

    Examples to augment are stored before all random transforms, others as model inputs. With several processes, all of
    them must call this function; the main process decides and writes.

    Args:
        inputs: Examples prepared by the modality.
        modality: Kind of input.
        train_passes: Number of times that each training example will be read.
        validation_passes: Number of times that each validation example will be read.
        folder: Folder of all cache entries.
        size_limit: Largest allowed size of all cache entries in the folder together, in bytes.
        sources: Identifier of the examples of each split, ``train`` and ``validation``: their contents and their
            preparation. It need not depend on the seed. Splits with the same identifier share their entry.
        always: Whether to cache even if that is not faster, provided that there is room.

    Returns:
        The same examples, read from the cache where it is used, and a report.
    """
    start = perf_counter()
    cache = _DecodedCache(folder, size_limit, sources)
    examples: dict[str, Any] = {"train": inputs.train, "validation": inputs.validation}
    reasons: list[str] = []
    count = 0
    for split, passes in (("train", train_passes), ("validation", validation_passes)):
        split_examples = examples[split]
        full_dataset = split_examples.dataset if isinstance(split_examples, Subset) else split_examples
        unseeded = full_dataset.dataset if isinstance(full_dataset, SeededExamples) else full_dataset
        decoded = modality.decoded_form(unseeded)
        if decoded is None:
            continue
        store, reason = _decide_on_main_process(cache, full_dataset, decoded, split, passes, always)
        if store is None:
            reasons.append(f"{split}: {reason}")
            continue
        cache = replace(cache, used_bytes=cache.used_bytes + store.size)
        cached = _with_seeds(full_dataset, decoded.over(store))
        examples[split] = (
            Subset(cached, split_examples.indices) if isinstance(split_examples, Subset) else cached
        )
        count += 1
    if not count and not reasons:
        reasons.append(f"there are no {modality.plural}")
    seconds = round(perf_counter() - start, 3)
    return replace(inputs, **examples), DecodeReport(count > 0, "; ".join(reasons), cache.used_bytes, seconds)


def _decide_on_main_process(
    cache: "_DecodedCache", examples: Any, decoded: DecodedForm, split: str, passes: int, always: bool
) -> tuple[RowStore | None, str]:
    """Decide and write on the main process; other processes follow its decision, and write on their disk if needed.

    Returns:
        The store, or None and the reason.
    """
    state = PartialState()
    store, reason = None, ""
    with main_process_first(state):
        if state.is_main_process:
            store, reason = cache.get_or_write(examples, decoded, split, passes, always=always)
    [reason] = broadcast_object_list([reason])
    if not state.is_main_process and not reason:
        store, reason = cache.get_or_write(examples, decoded, split, passes, always=True)
    return store, reason


def _with_seeds(examples: Any, dataset: Any) -> Any:
    """Return a dataset wrapped with the random seeds of the given examples, if they have any."""
    return examples.over(dataset) if isinstance(examples, SeededExamples) else dataset


@dataclass(frozen=True)
class _DecodedCache:
    """Reader and writer of the cache entries of splits; ``used_bytes`` is the size of the entries used by this run."""

    folder: Path
    size_limit: int
    sources: Mapping[str, str]
    used_bytes: int = 0

    def get_or_write(
        self, examples: Any, decoded: DecodedForm, split: str, passes: int, *, always: bool
    ) -> tuple[RowStore | None, str]:
        """Return the stored rows of a split, written first if necessary, or None and the reason."""
        if passes < 1:
            return None, "they are not read"
        folder = self.folder / f"{_key(self.sources[split], decoded)}-{decoded.what.split()[-1]}"
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(folder.with_name(f"{folder.name}.lock")):
                store = _open_entry(folder, len(decoded))
                if store is None:
                    self._make(examples, decoded, folder, None if always else passes)
                    store = RowStore(folder)
                return store, ""
        except _NotCachedError as error:
            return None, str(error)
        except OSError as error:
            if error.errno not in UNWRITABLE_ERRNOS:
                raise
            return None, f"they cannot be cached: {error.strerror}"

    def _make(self, examples: Any, decoded: DecodedForm, folder: Path, passes: int | None) -> None:
        decode_seconds, read_seconds, row_bytes = _measure(examples, decoded, folder)
        size = row_bytes * len(decoded)
        limit = self.size_limit - self.used_bytes
        surplus = sum(entry.bytes for entry in list_cache(self.folder)) + size - self.size_limit
        free = shutil.disk_usage(self.folder).free + max(0, surplus)  # the surplus is pruned below
        if passes is None:
            reason = _too_large(size, free, limit)
        else:
            reason = reason_not_to_cache(decode_seconds, read_seconds, passes, size, free, limit)
        if reason:
            raise _NotCachedError(reason)
        for removed in prune_cache(self.folder, self.size_limit - size):
            logger.info("Removed from the cache to stay within its size limit: %s", removed.about)
        _write(decoded, folder, f"{len(decoded)} {decoded.what}", limit)


def _open_entry(folder: Path, count: int) -> RowStore | None:
    """Open an existing cache entry; remove it and return None if it is damaged or has another number of examples."""
    try:
        store = RowStore(folder)
    except ValueError:
        store = None
    if store is None or len(store) != count:
        shutil.rmtree(folder, ignore_errors=True)
        return None
    folder.touch()  # marks the entry as recently used
    return store


def _measure(examples: Any, decoded: DecodedForm, folder: Path) -> tuple[float, float, int]:
    """Time a few examples.

    Returns:
        Seconds per example from its file, seconds per example from a store, and bytes per row of the store.
    """
    sample_indices = sorted({number * len(decoded) // NUM_TIMED for number in range(NUM_TIMED)})
    sample = decoded.select(sample_indices)
    with _partial_folder(folder) as partial:
        _write(sample, partial / "probe", "", None)
        store = RowStore(partial / "probe")
    decode_seconds = _median_seconds(_with_seeds(examples, sample.source()))
    read_seconds = _median_seconds(_with_seeds(examples, sample.over(store)))
    return decode_seconds, read_seconds, store.size // len(store)


@contextmanager
def _partial_folder(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder for rows to time, and remove it. Leftovers of a killed process are removed later."""
    partial = folder.with_name(f".{folder.name}.part")
    try:
        yield partial
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _median_seconds(examples: Any) -> float:
    durations = []
    for index in range(len(examples)):
        start = perf_counter()
        examples[index]
        durations.append(perf_counter() - start)
    return median(durations)


def _write(decoded: DecodedForm, folder: Path, about: str, limit: int | None) -> None:
    with closing(decoded.rows()) as rows:
        checked = _limited(rows, limit)
        first = next(checked)
        formats = [RowFormat(*values) for values in decoded.formats(first)]
        write_rows(folder, chain([first], checked), formats, {"about": about, "examples": len(decoded)})


def _limited(rows: Iterator[Row], limit: int | None) -> Iterator[Row]:
    """Yield rows while their total size is within the limit and their shapes are equal.

    The few timed rows cannot guarantee either.

    Raises:
        _NotCachedError: If the rows exceed the limit, or if model inputs differ in shape.
    """
    size, shape = 0, None
    for row in rows:
        size += sum(tensor.nbytes for tensor in row)
        if limit is not None and size > limit:
            raise _NotCachedError(
                f"more than the {limit:,} bytes that remain within the size limit are needed"
            )
        if len(row) == 1 and shape not in (None, row[0].shape):
            raise _NotCachedError("they have different sizes")
        shape = row[0].shape
        yield row


def _key(source: str, decoded: DecodedForm) -> str:
    """Return the cache key of examples: a hash of everything that their entry depends on."""
    facts = {
        "format": CACHE_FORMAT,
        "source": source,
        **decoded.facts,
        "versions": {name: version(name) for name in (*LIBRARIES, *decoded.packages)},
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]
