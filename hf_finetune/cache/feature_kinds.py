"""Several kinds of frozen features of the same examples, computed in one forward pass and each cached for itself."""

import logging
from abc import abstractmethod
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import torch
from torch.utils.data import Subset

from hf_finetune.cache.cut_point import Batch
from hf_finetune.cache.prefix_cache import CacheSettings, row_version
from hf_finetune.cache.replay import PrefixRunner
from hf_finetune.cache.writer import Collate, PrefixWriter, Version

__all__ = ["ForwardSettings", "KindRunner", "cached_kinds", "first_example"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ForwardSettings:
    """How frozen features are computed.

    Attributes:
        batch_size: Examples per forward pass.
        device: Device that runs the forward passes.
        autocast: Half-precision dtype of the forward passes; None for full precision.
    """

    batch_size: int
    device: torch.device
    autocast: torch.dtype | None = None

    def precision(self) -> AbstractContextManager[Any]:
        """Return a context in which the model computes in this precision."""
        return torch.autocast(self.device.type, self.autocast) if self.autocast else nullcontext()


class KindRunner(PrefixRunner):
    """Forward pass that computes several kinds of features, such as poolings of a text or layers of a recording.

    Attributes:
        kinds: Their names.
    """

    kinds: tuple[str, ...]

    @abstractmethod
    def only(self, kinds: tuple[str, ...]) -> Self:
        """Return a runner of the same model that computes other kinds.

        Args:
            kinds: Their names.
        """


def cached_kinds(
    runner: KindRunner,
    keys: Mapping[str, str],
    splits: Mapping[str, Any],
    collate: Collate,
    settings: CacheSettings,
    forward: ForwardSettings,
) -> dict[str, dict[str, np.ndarray]]:
    """Return features of each kind, from the cache where possible; the missing ones are computed in one forward pass.

    Args:
        runner: Computes the features.
        keys: Cache key of each of its kinds.
        splits: Examples by the name of their split.
        collate: Collate function.
        settings: Cache settings.
        forward: Batch size, device and precision of the forward passes.

    Returns:
        Float32 features [examples, features], by kind and split.

    Raises:
        CacheUnavailableError: If the features cannot be computed or cached.
    """
    with forward.precision():
        example = first_example(next(iter(splits.values())), collate, forward.device)
        width = max(vector.shape[1] for vector in runner.collect(example))
        writers = {
            kind: PrefixWriter(
                *(runner.only((kind,)), collate, forward.batch_size, 0, forward.device),
                *(settings.folder, settings.size_limit),
            )
            for kind in runner.kinds
        }
        features: dict[str, dict[str, np.ndarray]] = {kind: {} for kind in runner.kinds}
        for split, examples in splits.items():
            versions = {
                kind: row_version(keys[kind], settings.sources[split], examples) for kind in runner.kinds
            }
            _write_missing(writers, versions, width)
            for kind, version in versions.items():
                rows = writers[kind].read(version)
                order = examples.indices if isinstance(examples, Subset) else range(len(rows))
                features[kind][split] = torch.stack([rows[index][0] for index in order]).float().numpy()
    return features


def first_example(examples: Any, collate: Collate, device: torch.device) -> Batch:
    """Return a batch of the first example, without labels.

    Args:
        examples: Examples of a split.
        collate: Collate function.
        device: Device of the batch.
    """
    batch = collate([examples[0]])
    return {key: value.to(device) for key, value in batch.items() if key != "labels"}


def _write_missing(writers: Mapping[str, PrefixWriter], versions: Mapping[str, Version], width: int) -> None:
    """Compute and write the rows that are missing of the same examples, of several kinds."""
    first = next(iter(writers.values()))
    missing = {name: first.missing_parts(version) for name, version in versions.items()}
    parts = sorted({part for ranges in missing.values() for part in ranges}, key=lambda part: part.start)
    if not parts:
        return
    rows = sum(len(part) for ranges in missing.values() for part in ranges)
    first.free_space(4 * width * rows, list(versions.values()))
    logger.info(
        "Computing frozen features of %s examples for %d poolings or layers.",
        *(f"{sum(map(len, parts)):,}", sum(map(bool, missing.values()))),
    )
    for part in parts:
        names = [name for name, ranges in missing.items() if part in ranges]
        assert isinstance(first.runner, KindRunner)
        computed = replace(first, runner=first.runner.only(tuple(names))).compute(
            Subset(versions[names[0]].examples, part)
        )
        for column, name in enumerate(names):
            writers[name].write_part(versions[name], part, ((row[column], row[-1]) for row in computed))
