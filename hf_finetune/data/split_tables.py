"""Creation of missing splits and limits on their size: the row selections of ``split``, applied to tables."""

from collections.abc import Mapping

import numpy as np

from hf_finetune.data.split import choose_subset, create_grouped_splits, create_splits, strata_of
from hf_finetune.data.split_names import SPLITS
from hf_finetune.data.tables import Table
from hf_finetune.errors import join_words
from hf_finetune.targets import TARGETS
from hf_finetune.targets.labels import TargetName
from hf_finetune.targets.reading import flat_labels

__all__ = ["create_split_tables", "limit_tables", "note_created_splits", "select_split_rows"]


def create_split_tables(
    tables: Mapping[str, Table], fractions: Mapping[str, float], by_class: bool, seed: int
) -> dict[str, Table]:
    """Create missing splits from rows of train.

    Args:
        tables: Existing splits, with encoded labels.
        fractions: Fraction of train for each split to create.
        by_class: Whether to stratify by class.
        seed: Seed of the random choice of rows.

    Returns:
        All splits, in the order train, validation, test.
    """
    train = tables["train"]
    rows = select_split_rows(train, fractions, by_class, seed)
    cut = {split: train.take(chosen) for split, chosen in rows.items()}
    return {
        split: cut[split] if split in cut else tables[split] for split in SPLITS if split in {*cut, *tables}
    }


def select_split_rows(
    train: Table, fractions: Mapping[str, float], by_class: bool, seed: int
) -> dict[str, np.ndarray]:
    """Return the rows of train for each new split, and those that stay in train.

    The arguments are those of ``create_split_tables``.
    """
    strata = strata_of(train.labels) if by_class else None
    if train.groups is not None:
        return create_grouped_splits(train.groups, strata, fractions, seed)
    keys = [row if key is None else key for row, key in enumerate(train.keys)]
    return create_splits(keys, strata, fractions, seed)


def note_created_splits(
    tables: Mapping[str, Table], fractions: Mapping[str, float], by_class: bool, group: str | None
) -> str:
    """Return a note on the splits that were created from train: their sizes and how their rows were chosen.

    Args:
        tables: All splits after the division.
        fractions: Fraction of each split that was created, by split name.
        by_class: Whether the division was stratified by class.
        group: Group column; None if there is none.
    """
    sizes = join_words(f"{split} ({len(tables[split])} examples)" for split in fractions)
    if group is not None:
        method = f"without dividing groups of {group!r}"
    else:
        method = "stratified by class" if by_class else "at random"
    return f"Created from train, {method}: {sizes}; train keeps {len(tables['train'])} examples."


def limit_tables(tables: Mapping[str, Table], target: TargetName, limit: int, seed: int) -> dict[str, Table]:
    """Return splits of at most ``limit`` examples each, stratified by class.

    Examples of a class that train loses through the limit are removed from the other splits.

    Args:
        tables: Splits with encoded labels.
        target: Label type.
        limit: Maximum number of examples of each split.
        seed: Seed of the random choice of rows.
    """

    def choose(table: Table) -> Table:
        strata = strata_of(table.labels) if TARGETS[target].has_classes else None
        return table.take(choose_subset(strata, len(table), limit, seed))

    limited = {"train": choose(tables["train"])}
    lost = _classes(tables["train"], target) - _classes(limited["train"], target)
    for split, table in tables.items():
        if split != "train":
            rows = [row for row in range(len(table)) if not lost & _classes(table, target, row)]
            limited[split] = choose(table.take(rows))
    return limited


def _classes(table: Table, target: TargetName, row: int | None = None) -> set[int]:
    """Return the class indices of one row, or of all rows; empty without classes."""
    if not TARGETS[target].has_classes:
        return set()
    return set(flat_labels(table.labels if row is None else (table.labels[row],)))
