"""Augmentation that depends on the seed, the epoch and the example, and on nothing else."""

from typing import Any

import torch
from torch.utils.data import Subset

__all__ = ["SeededExamples", "cycle", "seed_of", "set_epoch"]


def seed_of(*numbers: int) -> int:
    """Make one seed of several whole numbers, the same in every process."""
    return hash(numbers) & 0x7FFF_FFFF_FFFF_FFFF


class SeededExamples(torch.utils.data.Dataset):
    """Examples whose chance is their own: the same in any order, on any number of processes, after any resume.

    The transform draws from torch's global generator, which is set for each example and put back after it.

    Args:
        dataset: Gives transformed examples by index.
        seed: The run's.
        views: Number of versions that epochs cycle through; None if each has its own.
    """

    def __init__(self, dataset: Any, seed: int, views: int | None = None):
        self.dataset, self.seed, self.views, self.epoch = dataset, seed, views, 0

    def set_epoch(self, epoch: int) -> None:
        """Draw other versions from here on. Call it before the epoch's data loader is iterated."""
        self.epoch = epoch if self.views is None else epoch % self.views

    def over(self, dataset: Any) -> "SeededExamples":
        """Give other examples the chances of these, from the same epoch on."""
        other = SeededExamples(dataset, self.seed, self.views)
        other.set_epoch(self.epoch)
        return other

    def cycling(self, views: int) -> "SeededExamples":
        """Give the same examples in the first versions only, again and again."""
        return SeededExamples(self.dataset, self.seed, views)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> dict[str, Any]:
        before = torch.get_rng_state()
        torch.default_generator.manual_seed(seed_of(self.seed, self.epoch, index))
        try:
            return self.dataset[index]
        finally:
            torch.set_rng_state(before)


def set_epoch(examples: Any, epoch: int) -> None:
    """Tell examples, or those that a ``Subset`` is of, which epoch it is, if they have several versions."""
    while isinstance(examples, Subset):
        examples = examples.dataset
    if hasattr(examples, "set_epoch"):
        examples.set_epoch(epoch)


def cycle(examples: Any, views: int) -> Any:
    """Let examples, or those that a ``Subset`` is of, come in their first versions only, if they have several."""
    if isinstance(examples, Subset):
        return Subset(cycle(examples.dataset, views), examples.indices)
    return examples.cycling(views) if hasattr(examples, "cycling") else examples
