"""Model inputs of queries with candidates: pairs for the pointwise loss, lists for the listwise one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import nan
from typing import TYPE_CHECKING, Any

import torch
from transformers import DataCollatorWithPadding

from hf_finetune.errors import InputError, Problem
from hf_finetune.tasks.examples import Inputs, Splits
from hf_finetune.tasks.seeded_augmentation import SeededExamples
from hf_finetune.tasks.text.inputs import prepare_texts

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = ["prepare_pairs", "rows_of_queries"]


def prepare_pairs(splits: Splits, processor: Any, data: Any, seed: int) -> Inputs:
    """Return pairs that are tokenized once; with ``data.list_size``, training examples are lists of them.

    Args:
        splits: Splits with the columns ``query``, ``candidate`` and ``label``.
        processor: Configured tokenizer.
        data: ``data`` of the recipe.
        seed: Seed of the drawn candidates.
    """
    inputs = prepare_texts(splits, processor, data, seed, augmented=False)
    highest = max(splits.train["label"][:], default=0.0) or 1.0
    validation = None if inputs.validation is None else _Pairs(inputs.validation, highest)
    pairs, collate = _Pairs(inputs.train, highest), _Collate(DataCollatorWithPadding(processor))
    if data.list_size is None:
        return replace(inputs, train=pairs, validation=validation, collate=collate)
    rows = rows_of_queries(splits.train)
    lengths = inputs.lengths
    return replace(
        inputs,
        train=SeededExamples(_Lists(pairs, rows, splits.train["label"][:], data.list_size), seed),
        validation=validation,
        collate=collate,
        lengths=None if lengths is None else [max(lengths[row] for row in query) for query in rows],
        rows=rows,
    )


def rows_of_queries(dataset: "Dataset") -> list[list[int]]:
    """Return the rows of each query, in the order of their first ones.

    Args:
        dataset: Dataset with the column ``query``.
    """
    rows: dict[str, list[int]] = {}
    for row, query in enumerate(dataset["query"][:]):
        rows.setdefault(query, []).append(row)
    return list(rows.values())


class _Pairs(torch.utils.data.Dataset):
    """Tokenized pairs, whose labels are the relevance and its share of the highest one.

    Args:
        tokenized: Tokenized pairs.
        highest: Highest relevance of the training split.
    """

    def __init__(self, tokenized: Any, highest: float):
        self.tokenized, self.highest = tokenized, highest

    def __len__(self) -> int:
        return len(self.tokenized)

    def __getitem__(self, index: int) -> dict[str, Any]:
        example = dict(self.tokenized[index])
        if "labels" in example:
            relevance = float(example["labels"])
            example["labels"] = [relevance, min(relevance / self.highest, 1.0)]
        return example


class _Lists(torch.utils.data.Dataset):
    """Queries with some of their candidates, drawn from torch's global generator.

    Args:
        pairs: Pairs of all queries.
        rows: Rows of each query.
        relevance: Label of each pair.
        size: Maximum number of candidates.
    """

    def __init__(self, pairs: _Pairs, rows: Sequence[Sequence[int]], relevance: Sequence[float], size: int):
        self.pairs, self.rows, self.relevance, self.size = pairs, rows, relevance, size

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        pairs = [self.pairs[row] for row in self._drawn(list(self.rows[index]))]
        return {name: [pair[name] for pair in pairs] for name in pairs[0]}

    def _drawn(self, rows: list[int]) -> list[int]:
        """Return at most ``size`` of the rows, in their order, among them a relevant one if there is any."""
        if len(rows) <= self.size:
            return rows
        shuffled = [rows[place] for place in torch.randperm(len(rows)).tolist()]
        first = next((row for row in shuffled if self.relevance[row] > 0), shuffled[0])
        others = [row for row in shuffled if row != first]
        return sorted([first, *others[: self.size - 1]])


@dataclass(frozen=True)
class _Collate:
    """Collate function of pairs, and of lists.

    The inputs of lists are those of all their candidates [lists x candidates, tokens], the labels [lists, candidates,
    2]. A shorter list is filled with copies of its first candidate, whose labels are nan. In a batch with lists, a pair
    is a list of one candidate.
    """

    pad: DataCollatorWithPadding

    def __call__(self, examples: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        if not any(map(_is_list, examples)):
            return dict(self.pad(examples))
        examples = [
            example if _is_list(example) else {name: [value] for name, value in example.items()}
            for example in examples
        ]
        most = max(len(example["input_ids"]) for example in examples)
        pairs = [
            _pair(example, place if place < len(example["input_ids"]) else 0)
            for example in examples
            for place in range(most)
        ]
        batch = dict(self.pad(pairs))
        if "labels" in examples[0]:
            labels = [
                [*example["labels"], *[[nan, nan]] * (most - len(example["labels"]))] for example in examples
            ]
            batch["labels"] = torch.tensor(labels, dtype=torch.float32)
        return batch


def _is_list(example: Mapping[str, Any]) -> bool:
    return isinstance(example["input_ids"][0], list)


def _pair(example: Mapping[str, Any], place: int) -> dict[str, Any]:
    return {name: values[place] for name, values in example.items() if name != "labels"}


def check_weights(data: Any) -> None:
    """Raise an error for weights of examples.

    Args:
        data: ``data`` of the recipe.

    Raises:
        InputError: If the recipe names a column of weights.
    """
    if data.columns.weight is not None:
        rule = "must not be set: every query counts the same"
        raise InputError(Problem("data.columns.weight", rule, repr(data.columns.weight)))
