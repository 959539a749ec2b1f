"""Cross-validation folds: all examples except those of the test split are divided so that each is held out once."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import numpy as np
from datasets import concatenate_datasets

from hf_finetune.data.split import strata_of
from hf_finetune.data.split_tables import select_split_rows
from hf_finetune.data.tables import ROW_VALUES, Table
from hf_finetune.errors import InputError, Problem
from hf_finetune.fields.lazy_module import LazyModule

__all__ = ["Fold", "FoldedSplits", "fold_tables", "join_tables", "number_groups"]

model_selection = LazyModule("sklearn.model_selection")


@dataclass(frozen=True)
class Fold:
    """Fold of a cross-validation.

    Attributes:
        number: Number of the fold, counted from 1.
        count: Number of folds.
    """

    number: int
    count: int


@dataclass(frozen=True)
class FoldedSplits:
    """Splits of one fold, which is the test split.

    Attributes:
        pool: All examples that are divided; the same for every fold.
        rows: Row indices of each split in ``pool``.
        note: Sentence for the user with the sizes of the splits.
    """

    pool: Table
    rows: dict[str, np.ndarray]
    note: str


def fold_tables(
    tables: Mapping[str, Table], fold: Fold, validation: float, by_class: bool, seed: int
) -> FoldedSplits:
    """Split the pooled train and validation examples into folds, and hold one fold out as the test split.

    A validation split is taken from the remaining examples if the tables have one. Duplicates of an example, and
    examples of one group, stay together. A class with fewer examples than folds is never held out.

    Args:
        tables: Table of each split; the test split is ignored.
        fold: Fold to hold out.
        validation: Fraction of the remaining examples for validation, in [0, 1).
        by_class: Whether folds are stratified by class.
        seed: Random seed of the division; the same for all folds.

    Returns:
        The pooled examples and the rows of each split; the fold that is held out is the test split.

    Raises:
        InputError: If there are fewer groups than folds.
    """
    pool = join_tables([tables[split] for split in ("train", "validation") if split in tables])
    strata = np.array(strata_of(pool.labels)) if by_class else np.zeros(len(pool), dtype=np.int64)
    groups = number_groups(pool)
    counts = Counter(strata.tolist())
    divided = np.array([row for row in range(len(pool)) if counts[strata[row]] >= fold.count], dtype=np.int64)
    if len(np.unique(groups[divided])) < fold.count:
        rule = "must be at most the number of groups (without a group column, of distinct examples)"
        raise InputError(Problem("evaluation.folds", rule, str(fold.count)))
    kind = model_selection.StratifiedGroupKFold if by_class else model_selection.GroupKFold
    splitter = kind(fold.count, shuffle=True, random_state=seed % 2**32)
    fold_rows = list(splitter.split(divided, strata[divided], groups[divided]))
    held_out = divided[fold_rows[fold.number - 1][1]]
    remaining = np.setdiff1d(np.arange(len(pool)), held_out)
    rows = {"train": remaining}
    if "validation" in tables and validation > 0:
        split_rows = select_split_rows(pool.take(remaining), {"validation": validation}, by_class, seed)
        rows = {split: remaining[chosen] for split, chosen in split_rows.items()}
    rows["test"] = np.sort(held_out)
    sizes = ", ".join(f"{split} {len(chosen)}" for split, chosen in rows.items())
    return FoldedSplits(pool, rows, f"Fold {fold.number} of {fold.count} is held out: {sizes}.")


def number_groups(table: Table) -> np.ndarray:
    """Return the group index of each row [rows]. Without a group column, duplicates of an example form a group.

    Args:
        table: Examples, with keys.
    """
    named = [str(group) for group in table.groups] if table.groups is not None else None
    names = named or [key or f"row {row}" for row, key in enumerate(table.keys)]
    return np.unique(np.array(names), return_inverse=True)[1]


def join_tables(tables: list[Table]) -> Table:
    """Return the examples of several tables as one.

    Args:
        tables: At least one table.
    """
    if len(tables) == 1:
        return tables[0]
    joined: dict[str, Any] = {}
    for name in ROW_VALUES:
        parts = [getattr(table, name) for table in tables]
        joined[name] = None if any(part is None for part in parts) else tuple(chain.from_iterable(parts))
    dataset = concatenate_datasets([table.dataset for table in tables])
    return replace(tables[0], dataset=dataset, full_dataset=None, rows=(), **joined)
