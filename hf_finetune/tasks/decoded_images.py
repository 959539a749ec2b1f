"""Cache of decoded images: stored before augmentation, or as final model inputs if there is no augmentation.

Model inputs are the same bit for bit with and without the cache: very large images are reduced in both cases.
"""

import hashlib
import json
import logging
import shutil
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from filelock import FileLock
from PIL import Image
from torch.utils.data import Dataset, Subset

from hf_finetune.cache.cache_dir import list_cache, prune_cache
from hf_finetune.cache.store import CANNOT_BE_KEPT, RowFormat, RowStore, write_rows
from hf_finetune.data.images import ImageTransform, TransformedImages, one_thread
from hf_finetune.data.seeded_augmentation import SeededExamples
from hf_finetune.data.tables import map_images
from hf_finetune.distributed import main_process_first
from hf_finetune.tasks.base import Inputs

__all__ = ["DecodeReport", "decode_once", "worth_keeping"]

logger = logging.getLogger(__name__)

LIBRARIES = ("datasets", "pillow", "timm", "torch", "torchvision", "transformers", "hf-finetune")
FORMAT = 1  # version of the file format; a new version invalidates all existing entries
PROBES = 8  # number of examples whose decoding and reading is timed
LEAST_GAIN = 0.1  # fraction of the decoding time that the cache must save to be written

Row = tuple[torch.Tensor, ...]


@dataclass(frozen=True)
class DecodeReport:
    """Result of ``decode_once``, for the run log.

    Attributes:
        used: Whether the images of at least one split are read from the cache.
        reason: Reasons why splits are not cached; empty if all are.
        bytes: Size of the cache entries.
        seconds: Time to decide, and to write or check the cache entries.
    """

    used: bool
    reason: str = ""
    bytes: int = 0
    seconds: float = 0.0


class _NotKeptError(Exception):
    """Raised if the images of a split cannot be cached or are not worth it; the message completes 'because ...'."""


def worth_keeping(
    decode_seconds: float, read_seconds: float, passes: int, bytes: int, free_bytes: int, size_limit: int
) -> str:
    """Return the reason why a cache of decoded images is not worthwhile; empty if it is.

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
    if cached <= (1 - LEAST_GAIN) * uncached:
        return ""
    times = "once" if passes == 1 else f"{passes} times"
    return (
        f"each is read {times}, in {1e3 * decode_seconds:.2g} ms from its file or "
        f"{1e3 * read_seconds:.2g} ms from the cache, which takes a pass to fill"
    )


def _too_large(size: int, free: int, limit: int) -> str:
    if size > limit:
        return f"they take about {size:,} bytes, and the size limit leaves {limit:,}"
    if size > free:
        return f"they take about {size:,} bytes, and the disk has {free:,} free"
    return ""


def decode_once(
    inputs: Inputs,
    *,
    train_passes: int,
    validation_passes: int,
    folder: Path,
    size_limit: int,
    source: str,
    always: bool = False,
) -> tuple[Inputs, DecodeReport]:
    """Decode the images of a run once into a cache, if that is faster than in each epoch, or use existing entries.

    Images to augment are stored before all random transforms: upright, in RGB, reduced if much larger than needed.
    Others are stored as model inputs. Texts are not cached. With several processes, all of them must call this
    function; the main process decides and writes.

    Args:
        inputs: Examples prepared by the task.
        train_passes: Number of times that each training image will be read.
        validation_passes: Number of times that each validation image will be read.
        folder: Folder of all cache entries.
        size_limit: Largest allowed size of all cache entries in the folder together, in bytes.
        source: Key of the data and its preparation. It need not depend on the seed.
        always: Whether to cache even if that is not faster, provided that there is room.

    Returns:
        The same examples, read from the cache where it is used, and a report.
    """
    begun = perf_counter()
    keeper = _Keeper(folder, size_limit, source)
    examples: dict[str, Any] = {"train": inputs.train, "validation": inputs.validation}
    count, reasons = 0, []
    for split, passes in (("train", train_passes), ("validation", validation_passes)):
        part = examples[split]
        whole = part.dataset if isinstance(part, Subset) else part
        images = _images_of(whole)
        if images is None:
            continue
        store, reason = _by_first_process(keeper, whole, images, split, passes, always)
        if store is None:
            reasons.append(f"{split}: {reason}")
            continue
        keeper = replace(keeper, held=keeper.held + store.size)
        cached = _over(whole, _behind(images, store))
        examples[split] = Subset(cached, part.indices) if isinstance(part, Subset) else cached
        count += 1
    if not count and not reasons:
        reasons.append("there are no images")
    seconds = round(perf_counter() - begun, 3)
    return replace(inputs, **examples), DecodeReport(count > 0, "; ".join(reasons), keeper.held, seconds)


def _by_first_process(
    keeper: "_Keeper", examples: Any, images: TransformedImages, split: str, passes: int, always: bool
) -> tuple[RowStore | None, str]:
    """Decide and write on the main process; other processes follow its decision, and write on their disk if needed.

    Returns:
        The store, or None and the reason.
    """
    state = PartialState()
    store, reason = None, ""
    with main_process_first(state):
        if state.is_main_process:
            store, reason = keeper.keep(examples, images, split, passes, always=always)
    [reason] = broadcast_object_list([reason])
    if not state.is_main_process and not reason:
        store, reason = keeper.keep(examples, images, split, passes, always=True)
    return store, reason


def _images_of(examples: Any) -> TransformedImages | None:
    inner = examples.dataset if isinstance(examples, SeededExamples) else examples
    return inner if isinstance(inner, TransformedImages) else None


def _over(examples: Any, dataset: Dataset) -> Dataset:
    """Return a dataset wrapped with the random seeds of the given examples, if they have any."""
    return examples.over(dataset) if isinstance(examples, SeededExamples) else dataset


def _behind(images: TransformedImages, store: RowStore) -> Dataset:
    """Return a dataset equal to ``images`` that reads from a store instead of image files."""
    rows = images.rows.select_columns([name for name in images.rows.column_names if name != "image"])
    if images.transform.fixed:
        return FinishedImages(rows, store, images.transform)
    return TransformedImages(DecodedImages(rows, store), images.transform)


class DecodedImages(Dataset):
    """Dataset whose images are read from a store of pixels.

    Args:
        rows: Dataset of the other columns.
        store: For each image, its pixels, uint8 [height * width, 3], and its shape, int64 [2]: height and width.
    """

    def __init__(self, rows: Any, store: RowStore):
        self.rows, self.store = rows, store

    def __len__(self) -> int:
        return len(self.store)

    def __getitem__(self, index: int) -> dict[str, Any]:
        pixels, shape = self.store[index]
        return {**self.rows[index], "image": Image.fromarray(pixels.view(*shape.tolist(), 3).numpy())}


class FinishedImages(Dataset):
    """Dataset whose model inputs are read from a store.

    Args:
        rows: Dataset of the other columns.
        store: Tensor of each image, as the model expects it.
        transform: Transform that encodes the labels.
    """

    def __init__(self, rows: Any, store: RowStore, transform: ImageTransform):
        self.rows, self.store, self.transform = rows, store, transform

    def __len__(self) -> int:
        return len(self.store)

    def __getitem__(self, index: int) -> dict[str, Any]:
        labels = self.transform.encode({name: [value] for name, value in self.rows[index].items()})
        return {"pixel_values": self.store[index][0], **{name: values[0] for name, values in labels.items()}}


@dataclass(frozen=True)
class _Keeper:
    """Reader and writer of the cache entries of splits.

    Attributes:
        folder: Folder of all cache entries.
        size_limit: Largest allowed size of all entries together, in bytes.
        source: Key of the examples.
        held: Size in bytes of the entries that this run already uses.
    """

    folder: Path
    size_limit: int
    source: str
    held: int = 0

    def keep(
        self, examples: Any, images: TransformedImages, split: str, passes: int, *, always: bool
    ) -> tuple[RowStore | None, str]:
        """Return the stored rows of a split, written first if necessary, or None and the reason."""
        if passes < 1:
            return None, "they are not read"
        folder = self.folder / f"{_key(self.source, split, images.transform)}-images-{split}"
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(folder.with_name(f"{folder.name}.lock")):
                store = _find(folder, len(images))
                if store is None:
                    self._make(examples, images, folder, None if always else passes)
                    store = RowStore(folder)
                return store, ""
        except _NotKeptError as error:
            return None, str(error)
        except OSError as error:
            if error.errno not in CANNOT_BE_KEPT:
                raise
            return None, f"they cannot be cached: {error.strerror}"

    def _make(self, examples: Any, images: TransformedImages, folder: Path, passes: int | None) -> None:
        decode_seconds, read_seconds, row_bytes = _measure(examples, images, folder)
        size = row_bytes * len(images)
        limit = self.size_limit - self.held
        surplus = sum(entry.bytes for entry in list_cache(self.folder)) + size - self.size_limit
        free = shutil.disk_usage(self.folder).free + max(0, surplus)  # the surplus is pruned below
        if passes is None:
            reason = _too_large(size, free, limit)
        else:
            reason = worth_keeping(decode_seconds, read_seconds, passes, size, free, limit)
        if reason:
            raise _NotKeptError(reason)
        for removed in prune_cache(self.folder, self.size_limit - size):
            logger.info("Removed from the cache to stay within its size limit: %s", removed.about)
        what = "prepared" if images.transform.fixed else "decoded"
        _write(images, folder, f"{len(images)} {what} images", limit)


def _find(folder: Path, count: int) -> RowStore | None:
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


def _measure(examples: Any, images: TransformedImages, folder: Path) -> tuple[float, float, int]:
    """Time a few examples.

    Returns:
        Seconds per example from its file, seconds per example from a store, and bytes per row of the store.
    """
    picked = sorted({number * len(images) // PROBES for number in range(PROBES)})
    some = TransformedImages(images.rows.select(picked), images.transform)
    with _partial_folder(folder) as partial:
        _write(some, partial / "probe", "", None)
        store = RowStore(partial / "probe")
    decode_seconds = _seconds(_over(examples, some))
    read_seconds = _seconds(_over(examples, _behind(some, store)))
    return decode_seconds, read_seconds, store.size // len(store)


@contextmanager
def _partial_folder(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder for rows to time, and remove it. Leftovers of a killed process are removed later."""
    partial = folder.with_name(f".{folder.name}.part")
    try:
        yield partial
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _seconds(examples: Any) -> float:
    taken = []
    for index in range(len(examples)):
        begun = perf_counter()
        examples[index]
        taken.append(perf_counter() - begun)
    return median(taken)


def _write(images: TransformedImages, folder: Path, about: str, limit: int | None) -> None:
    with one_thread(), closing(_rows(images)) as rows:
        checked = _limited(rows, limit)
        first = next(checked)
        if images.transform.fixed:
            formats = [RowFormat(tuple(first[0].shape), str(first[0].dtype).removeprefix("torch."), False)]
        else:
            formats = [RowFormat((3,), "uint8", True), RowFormat((2,), "int64", False)]
        write_rows(folder, chain([first], checked), formats, {"about": about, "examples": len(images)})


def _rows(images: TransformedImages) -> Generator[Row, None, None]:
    """Yield the rows of all images in order, decoded by several threads with few images in memory at a time."""
    decode, transform = images.rows.features["image"].decode_example, images.transform

    def make(raw: Any) -> Row:
        image = transform.prepare(decode(raw))
        if transform.fixed:
            return (transform.transform(image),)
        pixels = torch.from_numpy(np.array(image))
        return pixels.flatten(0, 1), torch.tensor(pixels.shape[:2])

    yield from map_images(images.rows, make)


def _limited(rows: Iterator[Row], limit: int | None) -> Iterator[Row]:
    """Yield rows while their total size is within the limit and their shapes are equal.

    The few timed rows cannot guarantee either.

    Raises:
        _NotKeptError: If the rows exceed the limit, or if model inputs differ in shape.
    """
    size, shape = 0, None
    for row in rows:
        size += sum(tensor.nbytes for tensor in row)
        if limit is not None and size > limit:
            raise _NotKeptError(f"they take more than the {limit:,} bytes that the size limit leaves")
        if len(row) == 1 and shape not in (None, row[0].shape):
            raise _NotKeptError("they have different sizes")
        shape = row[0].shape
        yield row


def _key(source: str, split: str, transform: ImageTransform) -> str:
    """Return the cache key of a split: a hash of everything that its entry depends on."""
    facts = {
        "format": FORMAT,
        "source": source,
        "split": split,
        "edge": transform.edge,
        "fixed": transform.fixed,
        "versions": {name: version(name) for name in LIBRARIES},
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]
