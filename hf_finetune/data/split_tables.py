"""Cut and limit tables: the pure row choices of ``split``, applied."""

from collections.abc import Mapping

import numpy as np

from hf_finetune.data.formatting import listed
from hf_finetune.data.labels import Target
from hf_finetune.data.locate import SPLITS
from hf_finetune.data.split import choose_subset, cut_by_group, cut_splits, strata_of
from hf_finetune.data.tables import Table

__all__ = ["cut_rows", "cut_tables", "limit_tables", "note_cut"]


def cut_tables(
    tables: Mapping[str, Table], fractions: Mapping[str, float], by_class: bool, seed: int
) -> dict[str, Table]:
    """Cut the missing splits from train.

    Args:
        tables: The splits that there are, their labels encoded.
        fractions: The share of train for each split to cut.
        by_class: Whether each split gets its share of every class.
        seed: Chooses the rows.
    """
    train = tables["train"]
    rows = cut_rows(train, fractions, by_class, seed)
    made = {split: train.take(chosen) for split, chosen in rows.items()}
    return {
        split: made[split] if split in made else tables[split]
        for split in SPLITS
        if split in {*made, *tables}
    }


def cut_rows(
    train: Table, fractions: Mapping[str, float], by_class: bool, seed: int
) -> dict[str, np.ndarray]:
    """Choose the rows of train that each split gets, and those that it keeps; as ``cut_tables``."""
    strata = strata_of(train.labels) if by_class else None
    if train.groups is not None:
        return cut_by_group(train.groups, strata, fractions, seed)
    keys = [row if key is None else key for row, key in enumerate(train.keys)]
    return cut_splits(keys, strata, fractions, seed)


def note_cut(
    tables: Mapping[str, Table], fractions: Mapping[str, float], by_class: bool, group: str | None
) -> str:
    """Say which splits were cut from train, how large they are, and how they were chosen."""
    made = listed(f"{split} ({len(tables[split])} examples)" for split in fractions)
    left = f"which keeps {len(tables['train'])}"
    if group is not None:
        return f"Cut from train, {left}: {made}, by whole groups of {group!r}."
    return f"Cut from train, {left}: {made}, {'with a share of every class' if by_class else 'at random'}."


def limit_tables(tables: Mapping[str, Table], target: Target, limit: int, seed: int) -> dict[str, Table]:
    """Keep part of each split. Classes that the limit takes out of train are not asked for in the others."""

    def choose(table: Table) -> Table:
        strata = None if target == "regression" else strata_of(table.labels)
        return table.take(choose_subset(strata, len(table), limit, seed))

    limited = {"train": choose(tables["train"])}
    lost = _classes(tables["train"], target) - _classes(limited["train"], target)
    for split, table in tables.items():
        if split != "train":
            rows = [row for row in range(len(table)) if not lost & _classes(table, target, row)]
            limited[split] = choose(table.take(rows))
    return limited


def _classes(table: Table, target: Target, row: int | None = None) -> set[int]:
    """The classes of one row, or of all."""
    if target == "regression":
        return set()
    labels = table.labels if row is None else (table.labels[row],)
    return {index for label in labels for index in (label if isinstance(label, list) else [label])}
