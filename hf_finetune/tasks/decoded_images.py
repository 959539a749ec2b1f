"""Images decoded once: kept as they are before any augmentation, or as the model takes them where there is none.

What an example becomes is the same with and without it, bit for bit: much larger images are reduced in both cases.
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
FORMAT = 1  # of the files; a change of it makes all of them anew
PROBES = 8  # examples that are timed
LEAST_GAIN = 0.1  # of the time that decoding takes; for less, nothing is written to a disk

Row = tuple[torch.Tensor, ...]


@dataclass(frozen=True)
class DecodeReport:
    """What came of it, for the person.

    Attributes:
        used: Whether images of any split are read from what is kept.
        reason: Why those of a split are not; empty if all are.
        bytes: Size of what is kept.
        seconds: What it took to decide, and to write or check what is kept.
    """

    used: bool
    reason: str = ""
    bytes: int = 0
    seconds: float = 0.0


class _NotKeptError(Exception):
    """The images of a split cannot be kept, or had better not be; the message completes 'because ...'."""


def worth_keeping(
    decode_seconds: float, read_seconds: float, passes: int, bytes: int, free_bytes: int, size_limit: int
) -> str:
    """Say why examples had better be made of their files in each pass; nothing if they had better be kept.

    Args:
        decode_seconds: To make an example of its file.
        read_seconds: To make it of what is kept. It is taken for the time to write and to check that, too.
        passes: How often each example will be made.
        bytes: Size of what is kept.
        free_bytes: On the disk.
        size_limit: Bytes that may be kept.
    """
    if reason := _too_large(bytes, free_bytes, size_limit):
        return reason
    without = passes * decode_seconds
    kept = decode_seconds + (passes + 2) * read_seconds
    if kept <= (1 - LEAST_GAIN) * without:
        return ""
    times = "once" if passes == 1 else f"{passes} times"
    return (
        f"each is made {times}, in {1e3 * decode_seconds:.2g} ms from its file and "
        f"{1e3 * read_seconds:.2g} ms from a kept image, which takes a pass to make"
    )


def _too_large(size: int, free: int, limit: int) -> str:
    if size > limit:
        return f"they take about {size:,} bytes, and the size limit leaves {limit:,}"
    if size > free:
        return f"they take about {size:,} bytes, and the disk has {free:,}"
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
    """Decode the images of a run once, where that is cheaper than in each pass, or find what was kept of them.

    Augmented images are kept as they are before all chance: upright, in RGB, reduced if they are much larger than
    needed. Others are kept as the model takes them. Texts are left as they are. Under several processes all call
    this; the first one decides and writes.

    Args:
        inputs: The examples, as the task prepares them.
        train_passes: How often each training image will be read.
        validation_passes: How often each validation image will be read.
        folder: Of all caches.
        size_limit: Bytes that all caches in the folder may take together.
        source: Identifies the data and how it is prepared. A seed need not be part of it.
        always: Keep them also where it is not cheaper, if there is room.

    Returns:
        The same examples, perhaps read from what is kept; and what is kept.
    """
    begun = perf_counter()
    keeper = _Keeper(folder, size_limit, source)
    examples: dict[str, Any] = {"train": inputs.train, "validation": inputs.validation}
    kept, reasons = 0, []
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
        read = _over(whole, _behind(images, store))
        examples[split] = Subset(read, part.indices) if isinstance(part, Subset) else read
        kept += 1
    if not kept and not reasons:
        reasons.append("there are no images")
    seconds = round(perf_counter() - begun, 3)
    return replace(inputs, **examples), DecodeReport(kept > 0, "; ".join(reasons), keeper.held, seconds)


def _by_first_process(
    keeper: "_Keeper", examples: Any, images: TransformedImages, split: str, passes: int, always: bool
) -> tuple[RowStore | None, str]:
    """Let the first process decide, and write; the others do as it did, and find the files on their disk or not."""
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
    """Give other examples the chances of these, if they have any."""
    return examples.over(dataset) if isinstance(examples, SeededExamples) else dataset


def _behind(images: TransformedImages, store: RowStore) -> Dataset:
    """Read from a store what else would be made of files."""
    rows = images.rows.select_columns([name for name in images.rows.column_names if name != "image"])
    if images.transform.fixed:
        return FinishedImages(rows, store, images.transform)
    return TransformedImages(DecodedImages(rows, store), images.transform)


class DecodedImages(Dataset):
    """Rows of a dataset, their images read from a store.

    Args:
        rows: The other columns.
        store: Of each image the pixels, and their height and width.
    """

    def __init__(self, rows: Any, store: RowStore):
        self.rows, self.store = rows, store

    def __len__(self) -> int:
        return len(self.store)

    def __getitem__(self, index: int) -> dict[str, Any]:
        pixels, shape = self.store[index]
        return {**self.rows[index], "image": Image.fromarray(pixels.view(*shape.tolist(), 3).numpy())}


class FinishedImages(Dataset):
    """Images as a model takes them, read from a store.

    Args:
        rows: The other columns.
        store: Of each image the tensor.
        transform: Encodes the labels.
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
    """Finds what is kept of a split, or writes it.

    Attributes:
        folder: Of all caches.
        size_limit: Bytes that all of them may take together.
        source: Identifies the examples.
        held: Bytes that this run has written or found there already.
    """

    folder: Path
    size_limit: int
    source: str
    held: int = 0

    def keep(
        self, examples: Any, images: TransformedImages, split: str, passes: int, *, always: bool
    ) -> tuple[RowStore | None, str]:
        """Give the rows of a split, or the reason why there are none."""
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
            return None, f"they cannot be kept: {error.strerror}"

    def _make(self, examples: Any, images: TransformedImages, folder: Path, passes: int | None) -> None:
        decode_seconds, read_seconds, row_bytes = _measure(examples, images, folder)
        size = row_bytes * len(images)
        limit = self.size_limit - self.held
        surplus = sum(each.bytes for each in list_cache(self.folder)) + size - self.size_limit
        free = shutil.disk_usage(self.folder).free + max(0, surplus)  # what is too much is removed
        if passes is None:
            reason = _too_large(size, free, limit)
        else:
            reason = worth_keeping(decode_seconds, read_seconds, passes, size, free, limit)
        if reason:
            raise _NotKeptError(reason)
        for removed in prune_cache(self.folder, self.size_limit - size):
            logger.info("Removed from the cache, to stay below its size limit: %s", removed.about)
        what = "prepared" if images.transform.fixed else "decoded"
        _write(images, folder, f"{len(images)} {what} images", limit)


def _find(folder: Path, count: int) -> RowStore | None:
    """Open what is there; remove it if it is damaged, or not of so many examples."""
    try:
        store = RowStore(folder)
    except ValueError:
        store = None
    if store is None or len(store) != count:
        shutil.rmtree(folder, ignore_errors=True)
        return None
    folder.touch()  # it is used: others are older
    return store


def _measure(examples: Any, images: TransformedImages, folder: Path) -> tuple[float, float, int]:
    """Make a few examples of their files and of a store: the seconds of an example each way, and bytes of a row."""
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
    """Give the folder in which rows are half written. What a killed process leaves there is removed later."""
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
    """Decode all images in order, several at a time, and hold few of them."""
    decode, transform = images.rows.features["image"].decode_example, images.transform

    def make(raw: Any) -> Row:
        image = transform.prepare(decode(raw))
        if transform.fixed:
            return (transform.transform(image),)
        pixels = torch.from_numpy(np.array(image))
        return pixels.flatten(0, 1), torch.tensor(pixels.shape[:2])

    yield from map_images(images.rows, make)


def _limited(rows: Iterator[Row], limit: int | None) -> Iterator[Row]:
    """Pass rows on until they take too much, which the few that were measured could not tell, or differ in shape."""
    size, shape = 0, None
    for row in rows:
        size += sum(tensor.nbytes for tensor in row)
        if limit is not None and size > limit:
            raise _NotKeptError(f"they take more than the {limit:,} bytes that the size limit leaves")
        if len(row) == 1 and shape not in (None, row[0].shape):
            raise _NotKeptError("they come out in several sizes")
        shape = row[0].shape
        yield row


def _key(source: str, split: str, transform: ImageTransform) -> str:
    """Name what is kept by all that it depends on."""
    said = {
        "format": FORMAT,
        "source": source,
        "split": split,
        "edge": transform.edge,
        "fixed": transform.fixed,
        "versions": {name: version(name) for name in LIBRARIES},
    }
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:32]
