"""Pairs of a labeled source example and an unlabeled input of the target domain, for domain adaptation."""

from collections.abc import Callable
from typing import Any

import torch

from hf_finetune.tasks.seeded_augmentation import derive_seed, set_epoch

__all__ = ["TARGET", "PairedCollate", "PairedExamples"]

TARGET = "target"
"""Key of an example's target-domain input."""


class PairedExamples(torch.utils.data.Dataset):
    """Examples that are each paired with an input of the target domain, by the seed, the epoch and the index only.

    A step therefore sees the same pairs on any number of processes and after any resume. In an epoch that draws every
    example once, the counts of any two target inputs differ by at most one.

    Args:
        source: Labeled examples by index.
        target: Unlabeled inputs of the target domain by index.
        seed: Seed of the random pairing.
    """

    def __init__(self, source: Any, target: Any, seed: int):
        self.source, self.target, self.seed, self.epoch = source, target, seed, 0
        self._orders: dict[tuple[int, int], list[int]] = {}

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, on which the pairs and the views of both domains depend."""
        self.epoch = epoch
        self._orders = {}
        set_epoch(self.source, epoch)
        set_epoch(self.target, epoch)

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {**self.source[index], TARGET: self.target[self.target_index(index)]}

    def target_index(self, index: int) -> int:
        """Return the index of the target input that is paired with an example in this epoch."""
        repetition, position = divmod(index, len(self.target))
        if (self.epoch, repetition) not in self._orders:
            seed = derive_seed(self.seed, self.epoch, repetition)
            order = torch.randperm(len(self.target), generator=torch.Generator().manual_seed(seed))
            self._orders[self.epoch, repetition] = order.tolist()
        return self._orders[self.epoch, repetition][position]


class PairedCollate:
    """Collate function of paired examples: first all source examples, then their target inputs.

    ``labels`` has entries for the source examples only. Examples without a target input, as in a validation split, are
    collated as usual.

    Args:
        collate: Collate function of unpaired examples.
    """

    def __init__(self, collate: Callable[[list[dict[str, Any]]], Any]):
        self.collate = collate

    def __call__(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        """Collate both domains together, so that they are padded to the same length."""
        sources = [{name: value for name, value in example.items() if name != TARGET} for example in examples]
        targets = [
            {**example[TARGET], "labels": example["labels"]} for example in examples if TARGET in example
        ]
        batch = dict(self.collate([*sources, *targets]))
        batch["labels"] = batch["labels"][: len(sources)]
        return batch
