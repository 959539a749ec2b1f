"""Labelled examples, each with an input of another domain beside it."""

from collections.abc import Callable
from typing import Any

import torch

from hf_finetune.data.seeded_augmentation import seed_of, set_epoch

__all__ = ["TARGET", "PairedCollate", "PairedExamples"]

TARGET = "target"
"""Under which name an example holds the input of the other domain."""


class PairedExamples(torch.utils.data.Dataset):
    """Examples with an input of another domain each, which depends on the seed, the epoch and the example only.

    So a step sees the same inputs on any number of processes and after any resume, each process its own share, and
    in an epoch that draws every example once, every input comes as often as any other, or once more.

    Args:
        source: Gives labelled examples by index.
        target: Gives unlabelled ones.
        seed: Of the draw.
    """

    def __init__(self, source: Any, target: Any, seed: int):
        self.source, self.target, self.seed, self.epoch = source, target, seed, 0
        self._orders: dict[tuple[int, int], list[int]] = {}

    def set_epoch(self, epoch: int) -> None:
        """Draw other inputs, and other versions of all, from here on."""
        self.epoch = epoch
        self._orders = {}
        set_epoch(self.source, epoch)
        set_epoch(self.target, epoch)

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {**self.source[index], TARGET: self.target[self.partner(index)]}

    def partner(self, index: int) -> int:
        """Give the index of the input that stands beside an example in this epoch."""
        turn, place = divmod(index, len(self.target))
        if (self.epoch, turn) not in self._orders:
            seed = seed_of(self.seed, self.epoch, turn)
            order = torch.randperm(len(self.target), generator=torch.Generator().manual_seed(seed))
            self._orders[self.epoch, turn] = order.tolist()
        return self._orders[self.epoch, turn][place]


class PairedCollate:
    """Makes one batch of examples and of the inputs beside them, which come behind all examples and have no labels.

    Examples that have nothing beside them, those of a validation split, make a batch as ever.

    Args:
        collate: Makes a batch of examples.
    """

    def __init__(self, collate: Callable[[list[dict[str, Any]]], Any]):
        self.collate = collate

    def __call__(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        """Collate, so that both domains are padded alike."""
        sources = [{name: value for name, value in one.items() if name != TARGET} for one in examples]
        targets = [{**one[TARGET], "labels": one["labels"]} for one in examples if TARGET in one]
        batch = dict(self.collate([*sources, *targets]))
        batch["labels"] = batch["labels"][: len(sources)]
        return batch
