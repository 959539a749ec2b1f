"""Examples with what the frozen prefix gives for them, and batches of those."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.utils.data import Dataset

from hf_finetune.cache.cut_point import CutPoint
from hf_finetune.cache.replay import PREFIX
from hf_finetune.cache.writer import VersionRows, varies
from hf_finetune.data.seeded_augmentation import set_epoch

__all__ = ["CachedCollate", "CachedExamples"]


class CachedExamples(Dataset):
    """Examples, each with what the prefix gives for it in the place of its image; a text keeps its tokens.

    Args:
        examples: What they were made of.
        versions: The rows of each version.
        rows: Of each example the number of its row; None if that is its own.
        text: Whether examples are texts.
    """

    def __init__(
        self, examples: Any, versions: Sequence[VersionRows], rows: Sequence[int] | None = None, *, text: bool
    ):
        self.examples, self.versions, self.rows, self.text = examples, list(versions), rows, text
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Show the version of this epoch. The tokens of a varied text are those that its version was made of."""
        self.view = epoch % len(self.versions)
        set_epoch(self.examples, self.view)

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> dict[str, Any]:
        *values, label = self.versions[self.view][index if self.rows is None else self.rows[index]]
        example = dict(self.examples[index]) if self.text else {"labels": label}
        return {**example, PREFIX: tuple(values)}


class CachedCollate:
    """Make a batch of ``CachedExamples``.

    Args:
        collate: Makes one of examples without a prefix.
        cut: Where the prefix ends.
    """

    def __init__(self, collate: Callable[[list[dict[str, Any]]], dict[str, torch.Tensor]], cut: CutPoint):
        self.collate, self.cut = collate, cut

    def __call__(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        """Put the values together; those of tokens are padded as the tokens are."""
        rows = [example[PREFIX] for example in examples]
        batch: dict[str, Any] = dict(
            self.collate([{key: value for key, value in each.items() if key != PREFIX} for each in examples])
        )
        batch[PREFIX] = tuple(
            _stack([row[number] for row in rows], varies(shape), batch)
            for number, shape in enumerate(self.cut.shapes)
        )
        return batch


def _stack(rows: Sequence[torch.Tensor], by_token: bool, batch: Mapping[str, Any]) -> torch.Tensor:
    if not by_token:
        return torch.stack(list(rows))
    mask = batch["attention_mask"].bool()
    padded = rows[0].new_zeros((*mask.shape, *rows[0].shape[1:]))
    padded[mask] = torch.cat(list(rows))
    return padded
