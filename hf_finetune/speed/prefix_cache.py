"""What a frozen prefix gives for each example, computed once and kept; the stage trains on that."""

import errno
import hashlib
import json
import logging
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from torch import nn
from torch.utils.data import DataLoader, Dataset

from hf_finetune.speed.cut import Batch, Cut, NoCutError, OutputShape, find_cut
from hf_finetune.speed.kept import prune_kept
from hf_finetune.speed.passing import PrefixPass, prove
from hf_finetune.speed.store import RowFormat, RowStore, write_rows

__all__ = ["CacheReport", "CacheSettings", "PrefixCache", "cache_prefix"]

logger = logging.getLogger(__name__)

PREFIX = "prefix"
LIBRARIES = ("torch", "torchvision", "transformers", "timm", "hf-finetune")
FORMAT = 1  # of the files; a change of it makes all of them anew
CANNOT_BE_KEPT = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EFBIG)
PROBES = (2, 3)  # examples of the batches with which a cut is sought

Collate = Callable[[list[dict[str, Any]]], dict[str, torch.Tensor]]


@dataclass(frozen=True)
class CacheSettings:
    """Where and how much is kept.

    Attributes:
        folder: Of all caches.
        views: Number of augmented versions of each training example; epochs cycle through them.
        size_limit: Bytes that all caches in the folder may take together.
        source: Identifies the examples: the data, how it is prepared, and the seed of its augmentation.
    """

    folder: Path
    views: int
    size_limit: int
    source: str


@dataclass(frozen=True)
class CacheReport:
    """What came of it, for the person.

    Attributes:
        used: Whether the stage trains behind a cache.
        reason: Why it does not; empty if it does.
        views: Number of versions of each training example.
        bytes: Size of what is kept.
    """

    used: bool
    reason: str = ""
    views: int = 0
    bytes: int = 0


@dataclass(frozen=True)
class PrefixCache:
    """A stage's examples behind its prefix.

    Attributes:
        train: Takes the place of the training examples.
        validation: Takes the place of the validation examples; None if there are none.
        collate: Makes a batch of them, with the prefix's values under ``prefix``.
        entry: Takes the values at each forward pass, within ``entry.passing()``.
        report: What is kept.
    """

    train: Dataset
    validation: Dataset | None
    collate: Collate
    entry: PrefixPass
    report: CacheReport


def cache_prefix(
    model: nn.Module,
    trainable: Collection[str],
    train: Any,
    validation: Any,
    collate: Collate,
    settings: CacheSettings,
    *,
    batch_size: int,
    device: torch.device,
    workers: int = 0,
    autocast: torch.dtype | None = None,
) -> PrefixCache:
    """Compute a model's frozen prefix for all examples, or find what was kept of it.

    Args:
        model: Frozen but for ``trainable``, and moved to the device, in the mode in which it trains.
        trainable: Names of the parameters that are trained.
        train: Training examples; ``set_epoch`` chooses the version.
        validation: Validation examples, or None.
        collate: Makes a batch of examples.
        settings: Where and how much is kept.
        batch_size: Examples per forward pass.
        device: Where to compute.
        workers: Data loader processes.
        autocast: Half precision that the stage computes in, if it does.

    Raises:
        NoCutError: If the prefix cannot be left out, or not be kept.
    """
    model.to(device).train()
    precision = torch.autocast(device.type, autocast) if autocast else nullcontext()
    with precision:
        probes = _probes(train, collate, device)
        cut = find_cut(model, trainable, probes)
        for probe in probes:
            prove(model, cut, probe)
        _check_shapes(cut)
        entry = PrefixPass(model, cut)
        key = _key(model, trainable, cut, settings.source, autocast)
        maker = _Maker(entry, collate, batch_size, workers, device, settings)
        views = [maker.store(train, f"{key}-train-{view}", view) for view in range(settings.views)]
        once = maker.store(validation, f"{key}-validation") if validation is not None else None
    image = tuple(probes[0]["pixel_values"].shape[1:]) if "pixel_values" in probes[0] else None
    examples = CachedExamples(train, views, text=image is None)
    held = CachedExamples(validation, [once], text=image is None) if once is not None else None
    size = sum(store.size for store in [*views, once] if store is not None)
    report = CacheReport(True, "", settings.views, size)
    return PrefixCache(examples, held, CachedCollate(collate, cut, image), entry, report)


class CachedExamples(Dataset):
    """Examples, each with what the prefix gives for it in the place of its image; a text keeps its tokens.

    Args:
        examples: What they were made of.
        stores: The rows of each version.
        text: Whether examples are texts.
    """

    def __init__(self, examples: Any, stores: Sequence[RowStore], *, text: bool):
        self.examples, self.stores, self.text = examples, list(stores), text
        self.view = 0

    def set_epoch(self, epoch: int) -> None:
        """Show the version of this epoch."""
        self.view = epoch % len(self.stores)

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> dict[str, Any]:
        *values, label = self.stores[self.view][index]
        example = dict(self.examples[index]) if self.text else {"labels": label}
        return {**example, PREFIX: tuple(values)}


class CachedCollate:
    """Make a batch of ``CachedExamples``.

    Args:
        collate: Makes one of examples without a prefix.
        cut: Where the prefix ends.
        image: Shape of an image; None for texts.
    """

    def __init__(self, collate: Collate, cut: Cut, image: tuple[int, ...] | None):
        self.collate, self.cut, self.image = collate, cut, image

    def __call__(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        rows = [example[PREFIX] for example in examples]
        batch: dict[str, Any] = dict(
            self.collate([{key: value for key, value in each.items() if key != PREFIX} for each in examples])
        )
        if self.image is not None:  # the model looks at its shape only
            batch["pixel_values"] = torch.zeros(()).expand(len(examples), *self.image)
        batch[PREFIX] = tuple(
            self._stack([row[number] for row in rows], _varies(shape), batch)
            for number, shape in enumerate(self.cut.shapes)
        )
        return batch

    def _stack(self, rows: Sequence[torch.Tensor], varies: bool, batch: Mapping[str, Any]) -> torch.Tensor:
        if not varies:
            return torch.stack(list(rows))
        mask = batch["attention_mask"].bool()
        padded = rows[0].new_zeros((*mask.shape, *rows[0].shape[1:]))
        padded[mask] = torch.cat(list(rows))
        return padded


@dataclass
class _Maker:
    """Computes the rows that are not there."""

    entry: PrefixPass
    collate: Collate
    batch_size: int
    workers: int
    device: torch.device
    settings: CacheSettings

    def store(self, examples: Any, name: str, view: int = 0) -> RowStore:
        folder = self.settings.folder / name
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_name(f"{name}.lock")):
            try:
                found = RowStore(folder)
            except ValueError:
                shutil.rmtree(folder, ignore_errors=True)
            else:
                folder.touch()  # it is used: others are older
                return found
            try:
                self._write(examples, folder, view)
            except OSError as error:
                if error.errno not in CANNOT_BE_KEPT:
                    raise
                raise NoCutError(f"what it gives cannot be kept: {error.strerror}") from error
            return RowStore(folder)

    def _write(self, examples: Any, folder: Path, view: int) -> None:
        rows = self._rows(examples, view)
        first = next(rows)
        formats = [
            RowFormat(tuple(tensor.shape[varies:]), _name(tensor.dtype), varies)
            for tensor, varies in zip(first, [*map(_varies, self.entry.cut.shapes), False], strict=True)
        ]
        self._make_room(first, len(examples))
        about = f"{type(self.entry.model).__name__} up to {self.entry.cut.boundary}, version {view + 1}"
        write_rows(folder, _chain(first, rows), formats, {"about": about, "examples": len(examples)})

    def _make_room(self, row: Sequence[torch.Tensor], count: int) -> None:
        needed = sum(tensor.nbytes for tensor in row) * count
        limit = self.settings.size_limit
        if needed > limit:
            raise NoCutError(f"what it gives takes about {needed:,} bytes, and the size limit is {limit:,}")
        for removed in prune_kept(self.settings.folder, limit - needed):
            logger.info("Removed from the cache, to stay below its size limit: %s", removed.about)
        free = shutil.disk_usage(self.settings.folder).free
        if needed > free:
            raise NoCutError(f"what it gives takes about {needed:,} bytes, and the disk has {free:,}")

    def _rows(self, examples: Any, view: int) -> Iterator[tuple[torch.Tensor, ...]]:
        if hasattr(examples, "set_epoch"):
            examples.set_epoch(view)
        loader = DataLoader(examples, self.batch_size, collate_fn=self.collate, num_workers=self.workers)
        for batch in loader:
            labels = batch.pop("labels")
            values = self.entry.collect({key: value.to(self.device) for key, value in batch.items()})
            mask = batch["attention_mask"].bool() if "attention_mask" in batch else None
            for index, label in enumerate(labels):
                found = [
                    value[index][mask[index]] if _varies(shape) and mask is not None else value[index]
                    for value, shape in zip(values, self.entry.cut.shapes, strict=True)
                ]
                yield (*found, label)


def _chain(first: Any, rest: Iterator[Any]) -> Iterator[Any]:
    yield first
    yield from rest


def _varies(shape: OutputShape) -> bool:
    return "tokens" in shape.sizes


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _check_shapes(cut: Cut) -> None:
    for shape in cut.shapes:
        if "tokens" in shape.sizes and (shape.sizes[1] != "tokens" or shape.sizes.count("tokens") > 1):
            raise NoCutError(f"the input of {cut.boundary} is not one row for each token")


def _probes(examples: Any, collate: Collate, device: torch.device) -> tuple[Batch, Batch]:
    """Make two batches of different numbers of examples, and of tokens."""
    if len(examples) < sum(PROBES):
        raise NoCutError("there are too few examples to look for it")
    found, start = [], 0
    for count in PROBES:
        batch = collate([examples[index] for index in range(start, start + count)])
        found.append({key: value.to(device) for key, value in batch.items() if key != "labels"})
        start += count
    one, other = found
    if "input_ids" in one and one["input_ids"].shape[1] == other["input_ids"].shape[1]:
        if one["input_ids"].shape[1] < 3:
            raise NoCutError("the texts are too short to look for it")
        one = {key: value[:, :-1] if value.ndim == 2 else value for key, value in one.items()}
    return one, other


def _key(
    model: nn.Module, trainable: Collection[str], cut: Cut, source: str, autocast: torch.dtype | None
) -> str:
    """Name what is kept by all that it depends on."""
    digest = hashlib.sha256()
    said = {
        "format": FORMAT,
        "cut": [cut.boundary, list(cut.keys), [module.name for module in cut.passed]],
        "config": str(getattr(model, "config", None)),
        "source": source,
        "precision": str(autocast),
        "versions": {name: version(name) for name in LIBRARIES},
    }
    digest.update(json.dumps(said, sort_keys=True).encode())
    trained = set(trainable)
    for name, value in model.state_dict().items():
        if name not in trained:
            digest.update(name.encode())
            digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()[:32]
