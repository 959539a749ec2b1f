"""Augmentation that depends only on the seed, the epoch and the index of the example."""

from typing import Any

import torch
from torch.utils.data import Subset

__all__ = ["SeededExamples", "cycle", "derive_seed", "set_epoch"]


def derive_seed(*numbers: int) -> int:
    """Return a seed derived from several integers, the same in every process."""
    return hash(numbers) & 0x7FFF_FFFF_FFFF_FFFF


class SeededExamples(torch.utils.data.Dataset):
    """Dataset that seeds each example separately: the same in any order, on any number of processes, after any resume.

    The transform draws from torch's global generator, which is seeded for each example and restored afterwards.

    Args:
        dataset: Transformed examples by index.
        seed: Seed of the run.
        views: Number of views (augmented versions) that epochs cycle through; None for a new view in every epoch.
    """

    def __init__(self, dataset: Any, seed: int, views: int | None = None):
        self.dataset, self.seed, self.views, self.epoch = dataset, seed, views, 0

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, which selects the views. Call it before iterating the epoch's data loader."""
        self.epoch = epoch if self.views is None else epoch % self.views

    def over(self, dataset: Any) -> "SeededExamples":
        """Return another dataset wrapped with the same seed, views and epoch."""
        examples = SeededExamples(dataset, self.seed, self.views)
        examples.set_epoch(self.epoch)
        return examples

    def cycling(self, views: int) -> "SeededExamples":
        """Return the same examples, with epochs that cycle through the first ``views`` views."""
        return SeededExamples(self.dataset, self.seed, views)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> dict[str, Any]:
        before = torch.get_rng_state()
        torch.default_generator.manual_seed(derive_seed(self.seed, self.epoch, index))
        try:
            return self.dataset[index]
        finally:
            torch.set_rng_state(before)


def set_epoch(examples: Any, epoch: int) -> None:
    """Set the epoch of examples, or of those that a ``Subset`` selects from, if they have several views."""
    while isinstance(examples, Subset):
        examples = examples.dataset
    if hasattr(examples, "set_epoch"):
        examples.set_epoch(epoch)


def cycle(examples: Any, views: int) -> Any:
    """Return examples whose epochs cycle through the first ``views`` views, if they have several.

    A ``Subset`` is rebuilt on the cycling examples.
    """
    if isinstance(examples, Subset):
        return Subset(cycle(examples.dataset, views), examples.indices)
    return examples.cycling(views) if hasattr(examples, "cycling") else examples
