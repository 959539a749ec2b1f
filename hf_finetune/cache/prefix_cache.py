"""What a frozen prefix gives for each example, computed once and kept; the stage trains on that."""

import copy
import hashlib
import json
import logging
from collections.abc import Collection, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from importlib.metadata import version
from math import ceil
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from torch import nn
from torch.utils.data import Dataset, Subset

from hf_finetune.cache.cached_examples import CachedCollate, CachedExamples
from hf_finetune.cache.cut_point import Batch, CacheUnavailableError, CutPoint, find_cut
from hf_finetune.cache.replay import PrefixPass, verify
from hf_finetune.cache.writer import Collate, RowCost, RowMaker, Version, VersionRows, varies
from hf_finetune.distributed import all_gather_objects, broadcast_from_main, local_processes
from hf_finetune.models.classifier_head import is_given
from hf_finetune.models.head_spec import set_head

__all__ = [
    "CacheReport",
    "CacheSettings",
    "PrefixCache",
    "SharedRows",
    "TextVectors",
    "cache_key",
    "cache_prefix",
    "choose_views",
    "held_out_version",
    "not_worth_caching",
    "saved_seconds",
    "train_version",
]

logger = logging.getLogger(__name__)

LIBRARIES = ("torch", "torchvision", "transformers", "timm", "hf-finetune")
SHORT = 10
"""Epochs up to which two versions give what a new version in each epoch gives."""
GAIN_SECONDS = 2.0
"""Least time that keeping must save in a stage: to look for the cut and to open files takes some, too."""
FORMAT = 2  # of the files; a change of it makes all of them anew
PROBES = (2, 3)  # examples of the batches with which a cut is sought


@dataclass(frozen=True)
class TextVectors:
    """Vectors of whole texts that several parts of a run need, each by a pooling of its own.

    Attributes:
        poolings: Names of the poolings, in the order of the values in a row.
        reads: The pooling that the head of the model reads.
        key: Name of the files, where a model under another head has computed them; empty otherwise.
    """

    poolings: tuple[str, ...]
    reads: str
    key: str = ""


@dataclass(frozen=True)
class SharedRows:
    """Rows with more values than a stage needs.

    Attributes:
        entry: Computes them; None if another model has done that.
        key: Name of the files.
        column: The value in a row that the stage needs.
    """

    entry: PrefixPass | None
    key: str
    column: int


@dataclass(frozen=True)
class CacheSettings:
    """Where and how much is kept.

    Attributes:
        folder: Of all caches.
        views: Number of augmented versions of each training example; epochs cycle through them.
        epochs: Passes of the stage over the examples, for which keeping must pay; None keeps in any case.
        size_limit: Bytes that all caches in the folder may take together.
        source: Identifies the examples: the data, how it is prepared, and the seed of its augmentation.
        unsound: Why a stage must not train on what is kept; empty if it may.
        texts: Vectors of texts that other parts of the run need, too; None if there are none.
    """

    folder: Path
    views: int
    epochs: float | None
    size_limit: int
    source: str
    unsound: str = ""
    texts: TextVectors | None = None

    @property
    def objection(self) -> str:
        """Why nothing is kept, or why that cannot pay, whatever it costs; empty if it may, or need not."""
        return self.unsound or not_worth_caching(self.views, self.epochs)


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
    state: PartialState,
    workers: int = 0,
    autocast: torch.dtype | None = None,
    held_out: str = "validation",
    shared: SharedRows | None = None,
) -> PrefixCache:
    """Compute a model's frozen prefix for all examples, or find what was kept of it.

    Several processes compute side by side, each its share. Of a ``Subset`` the rows of the whole set are kept, so that
    other subsets, such as the folds of a cross-validation, find them.

    Args:
        model: Frozen but for ``trainable``, in the mode in which it trains; it is moved to the device.
        trainable: Names of the parameters that are trained.
        train: Training examples; ``set_epoch`` chooses the version.
        validation: Validation examples, or None.
        collate: Makes a batch of examples.
        settings: Where and how much is kept.
        batch_size: Examples per forward pass.
        state: The processes; all of them call this.
        workers: Data loader processes.
        autocast: Half precision that the stage computes in, if it does.
        held_out: What the validation examples are called in the cache.
        shared: Rows that hold what the prefix gives, and that other parts of a run need, too.

    Raises:
        CacheUnavailableError: If the prefix cannot be left out, or not be kept, or if that would not pay. All
            processes raise it.
    """
    model.to(state.device).train()
    with torch.autocast(state.device.type, autocast) if autocast else nullcontext():
        entry = _prove_cut(model, trainable, train, collate, state.device)
        maker = RowMaker(
            entry, collate, batch_size, workers, state.device, settings.folder, settings.size_limit
        )
        key = cache_key(model, trainable, entry.cut, settings.source, autocast)
        column = None
        if shared is not None and broadcast_from_main(
            state, lambda: _serves(shared, maker, train, validation, held_out)
        ):
            key, column = shared.key, shared.column
            maker = replace(maker, entry=shared.entry or entry)
        plain = [held_out_version(key, validation, held_out)] if validation is not None else []
        wanted = [train_version(key, train, view) for view in range(settings.views)]
        views = broadcast_from_main(state, lambda: _affordable(maker, wanted, plain, settings))
        if isinstance(views, str):
            raise CacheUnavailableError(views)
        _make_together(maker, [*wanted[:views], *plain], state)
        rows = [VersionRows(maker.read(each).stores, column) for each in wanted[:views]]
        once = [VersionRows(maker.read(each).stores, column) for each in plain]
    text = "input_ids" in collate([train[0]])
    examples = CachedExamples(train, rows, _rows_of(train), text=text)
    held = CachedExamples(validation, once, _rows_of(validation), text=text) if once else None
    report = CacheReport(True, "", views, sum(each.size for each in [*rows, *once]))
    return PrefixCache(examples, held, CachedCollate(collate, entry.cut), entry, report)


def train_version(key: str, examples: Any, view: int = 0) -> Version:
    """Return a version of all training examples of which some are a ``Subset``."""
    return Version(_whole(examples), f"{key}-train-{view}", view)


def held_out_version(key: str, examples: Any, name: str) -> Version:
    """Return the version of examples that are not trained on, by the name of their split."""
    return Version(_whole(examples), f"{key}-{name}")


def _serves(shared: SharedRows, maker: RowMaker, train: Any, validation: Any, held_out: str) -> bool:
    """Return whether shared rows hold, bit for bit, what the prefix gives for the first batch.

    Rows that this model cannot compute must be there, whole.
    """
    first = Subset(_whole(train), range(min(maker.batch_size, len(_whole(train)))))
    expected = maker.compute(first)
    found: list[tuple[torch.Tensor, ...]]
    if shared.entry is not None:
        found = [(row[shared.column], row[-1]) for row in replace(maker, entry=shared.entry).compute(first)]
    else:
        versions = [train_version(shared.key, train)]
        versions += [held_out_version(shared.key, validation, held_out)] if validation is not None else []
        opened = [maker.open(version) for version in versions]
        if opened[0] is None or None in opened:
            return False
        rows = VersionRows(opened[0].stores, shared.column)
        found = [rows[index] for index in range(len(expected))]
    return all(
        len(row) == len(other)
        and all(one.dtype == two.dtype and torch.equal(one, two) for one, two in zip(row, other, strict=True))
        for row, other in zip(expected, found, strict=True)
    )


def choose_views(epochs: float, *, augmented: bool) -> int:
    """Choose how many versions of each training example are kept.

    Measured with EfficientNet-lite0 on the dishes at 160 pixels, head only: the test accuracy after 4, 10, 15 and 20
    epochs, means of 15, was 0.743, 0.740, 0.750 and 0.761 with a new version in each epoch; with 1 version 0.735,
    0.728, 0.729 and 0.729, with 2 versions 0.751, 0.737, 0.742 and 0.757, with 3 versions 0.741, 0.747, 0.755 and
    0.756. So two are enough for few epochs and three for many, and further ones cost more than they give.

    Args:
        epochs: Passes of the stage over the examples.
        augmented: Whether versions differ.
    """
    if not augmented:
        return 1
    return min(2 if epochs <= SHORT else 3, max(1, ceil(epochs)))


def not_worth_caching(views: int, epochs: float | None) -> str:
    """Say why it cannot pay to keep so many versions for so many epochs; nothing if it may, or need not (None)."""
    return "" if epochs is None or views < epochs else "each of its versions would be used once"


def saved_seconds(cost: RowCost, epochs: float, views: int) -> float:
    """Tell how many seconds of computing keeping saves for each example; below 0 it costs more than it saves."""
    return epochs * (cost.compute - cost.read) - views * (cost.compute + cost.write)


def _affordable(
    maker: RowMaker, wanted: Sequence[Version], plain: Sequence[Version], settings: CacheSettings
) -> int | str:
    """Tell how many versions are kept; or why none."""
    missing = maker.missing([*wanted, *plain])
    if not missing:
        return len(wanted)
    try:
        cost = maker.measure(wanted[0].examples)
        views = len(wanted)
        if settings.epochs is not None:
            fixed = sum(len(each.examples) for each in plain)
            fitting = (settings.size_limit // cost.bytes - fixed) // len(wanted[0].examples)
            views = max(1, min(views, fitting))
            saved = len(wanted[0].examples) * saved_seconds(cost, settings.epochs, views)
            if saved < GAIN_SECONDS:
                return f"to keep what it gives would save less than {GAIN_SECONDS:.0f} s"
        versions = [*wanted[:views], *plain]
        count = sum(len(each.examples) for each in maker.missing(versions))
        maker.make_room(cost.bytes * count, versions)
    except CacheUnavailableError as error:
        return str(error)
    examples = len(wanted[0].examples) + sum(len(each.examples) for each in plain)
    again = f", {count:,} augmented versions of them in all" if count > examples else ""
    seconds = count * (cost.compute + cost.write)
    logger.info(
        "Computing the frozen layers for %s examples%s: about %.0f s.", f"{examples:,}", again, seconds
    )
    return views


def _make_together(maker: RowMaker, versions: Sequence[Version], state: PartialState) -> None:
    """Let each process make its share; where one cannot, none goes on."""
    reason = ""
    try:
        maker.make(versions, state.local_process_index, local_processes(state))
    except CacheUnavailableError as error:
        reason = str(error)
    if reasons := [each for each in all_gather_objects(state, reason) if each]:
        raise CacheUnavailableError(reasons[0])


def _prove_cut(
    model: nn.Module, trainable: Collection[str], train: Any, collate: Collate, device: torch.device
) -> PrefixPass:
    probes = _probes(train, collate, device)
    cut = find_cut(model, trainable, probes)
    for probe in probes:
        verify(model, cut, probe)
    _check_shapes(cut)
    image = tuple(probes[0]["pixel_values"].shape[1:]) if "pixel_values" in probes[0] else None
    return PrefixPass(model, cut, image)


def _whole(examples: Any) -> Any:
    return examples.dataset if isinstance(examples, Subset) else examples


def _rows_of(examples: Any) -> Sequence[int] | None:
    return examples.indices if isinstance(examples, Subset) else None


def _check_shapes(cut: CutPoint) -> None:
    for shape in cut.shapes:
        if varies(shape) and (shape.sizes[1] != "tokens" or shape.sizes.count("tokens") > 1):
            raise CacheUnavailableError(f"the input of {cut.boundary} is not one row for each token")


def _probes(examples: Any, collate: Collate, device: torch.device) -> tuple[Batch, Batch]:
    """Make two batches of different numbers of examples, and of tokens."""
    if len(examples) < sum(PROBES):
        raise CacheUnavailableError("there are too few examples to look for it")
    found, start = [], 0
    for count in PROBES:
        batch = collate([examples[index] for index in range(start, start + count)])
        found.append({key: value.to(device) for key, value in batch.items() if key != "labels"})
        start += count
    one, other = found
    if "input_ids" in one and one["input_ids"].shape[1] == other["input_ids"].shape[1]:
        if one["input_ids"].shape[1] < 3:
            raise CacheUnavailableError("the texts are too short to look for it")
        one = {key: value[:, :-1] if value.ndim == 2 else value for key, value in one.items()}
    return one, other


def cache_key(
    model: nn.Module, trainable: Collection[str], cut: CutPoint, source: str, autocast: torch.dtype | None
) -> str:
    """Return the name of what is kept, made of all that it depends on."""
    digest = hashlib.sha256()
    said = {
        "format": FORMAT,
        "cut": [cut.boundary, list(cut.keys), [module.name for module in cut.passed]],
        "config": _backbone_config(model),
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


def _backbone_config(model: nn.Module) -> str:
    """Write a model's config without its head: what a prefix gives is the same under another one."""
    config = getattr(model, "config", None)
    if config is None or not is_given(config):
        return str(config)
    plain = copy.deepcopy(config)
    set_head(plain, None)
    return str(plain)
