"""Cross-validation: the examples that are not for the test, divided so that each is held out once."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import numpy as np
from datasets import concatenate_datasets
from sklearn.model_selection import GroupKFold, StratifiedGroupKFold

from hf_finetune.data.split import strata_of
from hf_finetune.data.split_tables import cut_rows
from hf_finetune.data.tables import Table
from hf_finetune.errors import InputError, Problem

__all__ = ["Fold", "Folded", "fold_tables", "number_groups"]


@dataclass(frozen=True)
class Fold:
    """One part of a cross-validation.

    Attributes:
        number: From 1 on.
        of: How many there are.
    """

    number: int
    of: int


@dataclass(frozen=True)
class Folded:
    """Splits of which the test is a fold.

    Attributes:
        pool: All examples that are divided: the same for every fold.
        rows: Of each split the rows of the pool that it has.
        note: A sentence on them.
    """

    pool: Table
    rows: dict[str, np.ndarray]
    note: str


def fold_tables(
    tables: Mapping[str, Table], fold: Fold, validation: float, by_class: bool, seed: int
) -> Folded:
    """Hold a fold out as the test split, and cut a validation split from the rest if there was one.

    Copies of an example, and examples of one group, stay together. A class of fewer examples than folds is trained on
    in all of them.

    Args:
        tables: The splits; that of the test is left out.
        fold: Which one is held out.
        validation: The share of the rest that is cut off for validation, in [0, 1).
        by_class: Whether each fold gets its share of every class.
        seed: Divides the examples; the same for all folds.

    Raises:
        InputError: If there are fewer groups than folds.
    """
    pool = _join([tables[split] for split in ("train", "validation") if split in tables])
    strata = np.array(strata_of(pool.labels)) if by_class else np.zeros(len(pool), dtype=np.int64)
    groups = number_groups(pool)
    counts = Counter(strata.tolist())
    divided = np.array([row for row in range(len(pool)) if counts[strata[row]] >= fold.of], dtype=np.int64)
    if len(np.unique(groups[divided])) < fold.of:
        rule = "must be at most the number of groups, or of examples that differ"
        raise InputError(Problem("evaluation.folds", rule, str(fold.of)))
    kind = StratifiedGroupKFold if by_class else GroupKFold
    splitter = kind(fold.of, shuffle=True, random_state=seed % 2**32)
    parts = list(splitter.split(divided, strata[divided], groups[divided]))
    held_out = divided[parts[fold.number - 1][1]]
    kept = np.setdiff1d(np.arange(len(pool)), held_out)
    rows = {"train": kept}
    if "validation" in tables and validation > 0:
        cut = cut_rows(pool.take(kept), {"validation": validation}, by_class, seed)
        rows = {split: kept[chosen] for split, chosen in cut.items()}
    rows["test"] = np.sort(held_out)
    sizes = ", ".join(f"{split} {len(chosen)}" for split, chosen in rows.items())
    return Folded(pool, rows, f"Fold {fold.number} of {fold.of} is held out: {sizes}.")


def number_groups(table: Table) -> np.ndarray:
    """Return the number of the group of each row: rows of one group, else copies of an example, share a number."""
    named = [str(group) for group in table.groups] if table.groups is not None else None
    names = named or [key or f"row {row}" for row, key in enumerate(table.keys)]
    return np.unique(np.array(names), return_inverse=True)[1]


def _join(tables: list[Table]) -> Table:
    first, *others = tables
    if not others:
        return first

    def joined(field: str) -> Any:
        parts = [getattr(table, field) for table in tables]
        return None if any(part is None for part in parts) else tuple(chain.from_iterable(parts))

    return replace(
        first,
        dataset=concatenate_datasets([table.dataset for table in tables]),
        ids=tuple(row for table in tables for row in table.ids),
        labels=tuple(label for table in tables for label in table.labels),
        groups=joined("groups"),
        weights=joined("weights"),
        unknown=joined("unknown"),
        shares=joined("shares"),
        whole=None,
        rows=(),
        contents=tuple(content for table in tables for content in table.contents),
        keys=tuple(key for table in tables for key in table.keys),
    )
