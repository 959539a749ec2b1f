"""Cache of the outputs of a frozen prefix: computed once for each example, and then used to train the stage."""

import copy
import hashlib
import json
import logging
from collections.abc import Collection, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from importlib.metadata import version as library_version
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from torch import nn
from torch.utils.data import Dataset, Subset

from hf_finetune.cache.cached_examples import CachedCollate, CachedExamples
from hf_finetune.cache.cut_point import Batch, CacheUnavailableError, CutPoint
from hf_finetune.cache.find_cut import find_cut
from hf_finetune.cache.replay import PrefixRunner, verify
from hf_finetune.cache.views import reason_not_to_cache, saved_seconds
from hf_finetune.cache.writer import Collate, PrefixWriter, Version
from hf_finetune.distributed import all_gather_objects, broadcast_from_main, local_processes
from hf_finetune.models.classifier_head import is_given
from hf_finetune.models.head_spec import set_head
from hf_finetune.tasks import Inputs, fixed_size_input, token_count

__all__ = [
    "CacheReport",
    "CacheSettings",
    "PrefixCache",
    "SharedRows",
    "cache_key",
    "cache_prefix",
    "row_version",
]

logger = logging.getLogger(__name__)

LIBRARIES = ("torch", "torchvision", "transformers", "timm", "hf-finetune")
MIN_GAIN_SECONDS = 2.0
"""Minimum number of seconds that the cache must save per stage; finding the cut point and opening files take time."""
CACHE_FORMAT = 3  # version of the file format; a change of it invalidates all entries
PROBE_EXAMPLES = (2, 3)  # numbers of examples in the two batches with which the cut point is found
MATCHED_EXAMPLES = 4
"""Number of examples of which shared rows are computed anew, to check that they are equal."""


@dataclass(frozen=True)
class SharedRows:
    """Rows that other parts of a run or other runs need as well.

    Attributes:
        runner: Runner that computes them.
        key: Their cache key.
    """

    runner: PrefixRunner
    key: str


@dataclass(frozen=True)
class CacheSettings:
    """Location and limits of a stage's prefix cache.

    Attributes:
        folder: Root folder of all caches.
        views: Number of augmented versions of each training example; epochs cycle through them.
        epochs: Epochs of the stage, within which caching must pay off; None caches in any case.
        size_limit: Maximum size in bytes of all caches in the folder together.
        sources: Identifier of the examples of each split: their contents, their preprocessing, and the seed of their
            augmentation. Splits with the same identifier share their rows.
        unsupported_reason: Reason why a stage must not train on cached outputs; empty if it may.
        text_pooling: Pooling of the head of a text model; empty for other models.
        shares_layer: Whether the head reads one layer of unaugmented recordings, whose features other heads read too.
        seconds_limit: Time (seconds) in which the outputs may be computed; None for any time. A cache that is used in
            any case is not limited.
    """

    folder: Path
    views: int
    epochs: float | None
    size_limit: int
    sources: Mapping[str, str]
    unsupported_reason: str = ""
    text_pooling: str = ""
    shares_layer: bool = False
    seconds_limit: float | None = None

    @property
    def reason_not_to_cache(self) -> str:
        """Reason not to cache that is known without measuring; empty if there is none."""
        return self.unsupported_reason or reason_not_to_cache(self.views, self.epochs)


@dataclass(frozen=True)
class CacheReport:
    """Outcome of caching, reported to the user.

    Attributes:
        used: Whether the stage trains on cached outputs.
        reason: Reason why it does not; empty if it does.
        views: Number of augmented versions of each training example.
        bytes: Size of the cached rows.
    """

    used: bool
    reason: str = ""
    views: int = 0
    bytes: int = 0


@dataclass(frozen=True)
class PrefixCache:
    """Cached examples of a stage, and the objects needed to train on them.

    Attributes:
        train: Dataset that replaces the training examples.
        validation: Dataset that replaces the validation examples; None if there are none.
        collate: Collate function of both, which puts the prefix outputs under ``prefix``.
        runner: Runner that injects the prefix outputs in each forward pass within ``runner.active()``.
        report: Outcome of caching.
    """

    train: Dataset
    validation: Dataset | None
    collate: Collate
    runner: PrefixRunner
    report: CacheReport


def cache_prefix(
    model: nn.Module,
    trainable: Collection[str],
    inputs: Inputs,
    settings: CacheSettings,
    *,
    batch_size: int,
    state: PartialState,
    workers: int = 0,
    autocast: torch.dtype | None = None,
    held_out: str = "validation",
    shared: SharedRows | None = None,
) -> PrefixCache:
    """Return the examples of a stage with the outputs of the frozen prefix, from the cache where possible.

    Several processes compute in parallel, each its share. For a ``Subset`` the rows of the whole dataset are cached,
    so that other subsets, such as the folds of a cross-validation, can use them.

    Args:
        model: Model in which all parameters but ``trainable`` are frozen; it is moved to the device.
        trainable: Names of the trained parameters.
        inputs: Training examples, of which ``set_epoch`` selects the augmented version, and validation examples.
        settings: Location and limits of the cache.
        batch_size: Examples per forward pass.
        state: Processes of the launch; all of them call this function.
        workers: Data loader workers.
        autocast: Half-precision dtype in which the stage computes; None for full precision.
        held_out: Name of the validation split in ``settings.sources``.
        shared: Rows that equal the prefix outputs and that others need as well; used if they are equal indeed.

    Raises:
        CacheUnavailableError: If the prefix cannot be skipped or its outputs cannot be cached, or if caching would
            not pay off. All processes raise it.
    """
    train, validation, collate = inputs.train, inputs.validation, inputs.collate
    model.to(state.device).train()
    with torch.autocast(state.device.type, autocast) if autocast else nullcontext():
        runner = _find_verified_cut(model, trainable, train, collate, state.device)
        writer = PrefixWriter(
            runner, collate, batch_size, workers, state.device, settings.folder, settings.size_limit
        )
        key = cache_key(model, trainable, runner.cut, autocast, batch_size)
        source = settings.sources["train"]
        if shared is not None and broadcast_from_main(
            state, lambda: _shared_rows_match(shared.runner, writer, _full_dataset(train))
        ):
            key, writer = shared.key, replace(writer, runner=shared.runner)
        train_versions = [row_version(key, source, train, view) for view in range(settings.views)]
        held_out_versions = []
        if validation is not None:
            held_out_versions = [row_version(key, settings.sources[held_out], validation)]
        views, reason = broadcast_from_main(
            state, lambda: _affordable_views(writer, train_versions, held_out_versions, settings)
        )
        if reason:
            raise CacheUnavailableError(reason)
        _write_on_all_processes(writer, [*train_versions[:views], *held_out_versions], state)
        train_rows = [writer.read(version) for version in train_versions[:views]]
        held_out_rows = [writer.read(version) for version in held_out_versions]
    keeps_inputs = fixed_size_input(collate([train[0]])) is None  # otherwise the model needs only the shape
    train_examples = CachedExamples(train, train_rows, _subset_indices(train), keeps_inputs=keeps_inputs)
    validation_examples = None
    if held_out_rows:
        rows = _subset_indices(validation)
        validation_examples = CachedExamples(validation, held_out_rows, rows, keeps_inputs=keeps_inputs)
    report = CacheReport(True, "", views, sum(item.size for item in [*train_rows, *held_out_rows]))
    return PrefixCache(
        train_examples, validation_examples, CachedCollate(collate, runner.cut), runner, report
    )


def row_version(key: str, source: str, examples: Any, view: int = 0) -> Version:
    """Return a version of examples; for a ``Subset``, of its whole dataset.

    Args:
        key: Cache key of the outputs, from ``cache_key``.
        source: Identifier of the examples.
        examples: The examples.
        view: Index of their augmented view.
    """
    name = hashlib.sha256(f"{key} {source}".encode()).hexdigest()[:32]
    return Version(_full_dataset(examples), f"{name}-{view}", view)


def _shared_rows_match(runner: PrefixRunner, writer: PrefixWriter, examples: Any) -> bool:
    """Return whether another runner computes the prefix outputs of the first examples, bit for bit."""
    first = Subset(examples, range(min(writer.batch_size, MATCHED_EXAMPLES, len(examples))))
    expected = writer.compute(first)
    shared_rows = replace(writer, runner=runner).compute(first)
    return all(
        len(row) == len(shared_row)
        and all(
            value.dtype == shared_value.dtype and torch.equal(value, shared_value)
            for value, shared_value in zip(row, shared_row, strict=True)
        )
        for row, shared_row in zip(expected, shared_rows, strict=True)
    )


def _affordable_views(
    writer: PrefixWriter,
    train_versions: Sequence[Version],
    held_out_versions: Sequence[Version],
    settings: CacheSettings,
) -> tuple[int, str]:
    """Return the number of augmented versions to cache, and an empty reason; or 0 and the reason why none is cached."""
    if not writer.incomplete_versions([*train_versions, *held_out_versions]):
        return len(train_versions), ""
    train_examples = len(train_versions[0].examples)
    held_out_examples = sum(
        len(version.examples) for version in held_out_versions if version not in train_versions
    )
    try:
        cost = writer.measure(train_versions[0].examples)
        views = len(train_versions)
        if settings.epochs is not None:
            max_rows = settings.size_limit // cost.bytes - held_out_examples
            views = max(1, min(views, max_rows // train_examples))
            if settings.seconds_limit is not None:
                rows = settings.seconds_limit / (cost.compute + cost.write) - held_out_examples
                views = min(views, int(rows // train_examples))
                if views < 1:
                    return 0, "computing the outputs would take too much of the time limit"
            saved = train_examples * saved_seconds(cost, settings.epochs, views)
            if saved < MIN_GAIN_SECONDS:
                return 0, f"caching would save less than {MIN_GAIN_SECONDS:.0f} s"
        versions = [*train_versions[:views], *held_out_versions]
        count = sum(len(version.examples) for version in writer.incomplete_versions(versions))
        writer.free_space(cost.bytes * count, versions)
    except CacheUnavailableError as error:
        return 0, str(error)
    examples = train_examples + held_out_examples
    views_note = f", {count:,} views in total" if count > examples else ""
    seconds = count * (cost.compute + cost.write)
    logger.info(
        "Computing outputs of frozen layers for %s examples%s: about %.0f s.",
        f"{examples:,}",
        views_note,
        seconds,
    )
    return views, ""


def _write_on_all_processes(writer: PrefixWriter, versions: Sequence[Version], state: PartialState) -> None:
    """Compute the share of each process; if one fails, all of them raise ``CacheUnavailableError``."""
    reason = ""
    try:
        writer.write_missing(versions, state.local_process_index, local_processes(state))
    except CacheUnavailableError as error:
        reason = str(error)
    if reasons := [message for message in all_gather_objects(state, reason) if message]:
        raise CacheUnavailableError(reasons[0])


def _find_verified_cut(
    model: nn.Module, trainable: Collection[str], train: Any, collate: Collate, device: torch.device
) -> PrefixRunner:
    probes = _probes(train, collate, device)
    cut = find_cut(model, trainable, probes)
    for probe in probes:
        verify(model, cut, probe)
    for shape in cut.shapes:
        if shape.has_tokens and (shape.sizes[1] != "tokens" or shape.sizes.count("tokens") > 1):
            raise CacheUnavailableError(f"the input of {cut.boundary} does not have one row per token")
    name = fixed_size_input(probes[0])
    return PrefixRunner(model, cut, None if name is None else (name, tuple(probes[0][name].shape[1:])))


def _full_dataset(examples: Any) -> Any:
    return examples.dataset if isinstance(examples, Subset) else examples


def _subset_indices(examples: Any) -> Sequence[int] | None:
    return examples.indices if isinstance(examples, Subset) else None


def _probes(examples: Any, collate: Collate, device: torch.device) -> tuple[Batch, Batch]:
    """Return two batches without labels, with different numbers of examples and of tokens."""
    if len(examples) < sum(PROBE_EXAMPLES):
        raise CacheUnavailableError(
            f"fewer than {sum(PROBE_EXAMPLES)} examples are too few to detect the frozen prefix"
        )
    batches, start = [], 0
    for count in PROBE_EXAMPLES:
        batch = collate([examples[index] for index in range(start, start + count)])
        batches.append({key: value.to(device) for key, value in batch.items() if key != "labels"})
        start += count
    first, second = batches
    if 0 < token_count(first) == token_count(second):
        if token_count(first) < 3:
            raise CacheUnavailableError("the texts are too short to detect the frozen prefix")
        first = {key: value[:, :-1] if value.ndim == 2 else value for key, value in first.items()}
    return first, second


def cache_key(
    model: nn.Module,
    unused: Collection[str],
    cut: CutPoint,
    autocast: torch.dtype | None,
    batch_size: int,
) -> str:
    """Return the cache key of the prefix outputs: a hash of everything that they depend on but the examples.

    Args:
        model: The model.
        unused: Names of parameters on which they do not depend.
        cut: Cut point at which the prefix ends.
        autocast: Half-precision dtype in which they are computed; None for full precision.
        batch_size: Examples per forward pass: in batches of another size, the last bits of an output can differ.
    """
    content = {
        "format": CACHE_FORMAT,
        "cut": [cut.boundary, list(cut.keys), [module.name for module in cut.skipped]],
        **({"outputs": True} if cut.is_output else {}),
        "config": _backbone_config(model),
        "batch_size": batch_size,
        "precision": str(autocast),
        "versions": {name: library_version(name) for name in LIBRARIES},
    }
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode())
    for name, value in model.state_dict().items():
        if name not in unused:
            digest.update(name.encode())
            digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _backbone_config(model: nn.Module) -> str:
    """Return a model's config as text, without the head, on which the prefix outputs do not depend."""
    config = getattr(model, "config", None)
    if config is None or not is_given(config):
        return str(config)
    headless = copy.deepcopy(config)
    set_head(headless, None)
    return str(headless)
