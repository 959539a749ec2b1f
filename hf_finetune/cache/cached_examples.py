"""Dataset and collate function for examples with cached outputs of the frozen prefix."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.utils.data import Dataset

from hf_finetune.cache.cut_point import CutPoint
from hf_finetune.cache.replay import PREFIX
from hf_finetune.cache.writer import VersionRows
from hf_finetune.tasks.seeded_augmentation import set_epoch

__all__ = ["CachedCollate", "CachedExamples"]


class CachedExamples(Dataset):
    """Dataset that replaces each example by the cached outputs of the frozen prefix.

    Args:
        examples: Examples from which the cached rows were computed.
        views: Cached rows of each view.
        rows: Row index of each example; None if it equals the index of the example.
        keeps_inputs: Whether examples also contain the original model inputs (tokens, attention mask).
    """

    def __init__(
        self,
        examples: Any,
        views: Sequence[VersionRows],
        rows: Sequence[int] | None = None,
        *,
        keeps_inputs: bool,
    ):
        self.examples = examples
        self.views = list(views)
        self.rows = rows
        self.keeps_inputs = keeps_inputs
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Select the view for an epoch, both of the cached rows and of the tokens of augmented texts."""
        self.view = epoch % len(self.views)
        set_epoch(self.examples, self.view)

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> dict[str, Any]:
        *values, label = self.views[self.view][index if self.rows is None else self.rows[index]]
        example = dict(self.examples[index]) if self.keeps_inputs else {"labels": label}
        return {**example, PREFIX: tuple(values)}


class CachedCollate:
    """Collate function for ``CachedExamples``.

    Args:
        collate: Collate function for examples without prefix outputs.
        cut: Cut point at which the prefix ends.
    """

    def __init__(self, collate: Callable[[list[dict[str, Any]]], dict[str, torch.Tensor]], cut: CutPoint):
        self.collate, self.cut = collate, cut

    def __call__(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        """Return a batch with the prefix outputs under ``prefix``; outputs per token are padded like the tokens."""
        rows = [example[PREFIX] for example in examples]
        inputs = [{key: value for key, value in fields.items() if key != PREFIX} for fields in examples]
        batch: dict[str, Any] = dict(self.collate(inputs))
        batch[PREFIX] = tuple(
            _stack([row[column] for row in rows], shape.has_tokens, batch)
            for column, shape in enumerate(self.cut.shapes)
        )
        return batch


def _stack(rows: Sequence[torch.Tensor], by_token: bool, batch: Mapping[str, Any]) -> torch.Tensor:
    if not by_token:
        return torch.stack(list(rows))
    mask = batch["attention_mask"].bool()
    padded = rows[0].new_zeros((*mask.shape, *rows[0].shape[1:]))
    padded[mask] = torch.cat(list(rows))
    return padded
