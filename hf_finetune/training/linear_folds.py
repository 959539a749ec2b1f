"""Folds of the cross-validation of a linear layer."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from hf_finetune.data.split import strata_of
from hf_finetune.targets import TARGETS
from hf_finetune.targets.labels import TargetName

__all__ = ["FOLDS", "assign_folds"]

FOLDS = 5
"""Number of cross-validation folds."""


def assign_folds(
    labels: Sequence[Any], target: TargetName, views: int, seed: int, groups: Sequence[int] = ()
) -> np.ndarray:
    """Assign examples to ``FOLDS`` stratified folds.

    All views of an example, and all examples of a group, are in the same fold. A group is stratified by the class of
    its first example. A single group cannot be divided, so the groups are then ignored.

    Args:
        labels: Class indices, lists of class indices, or other labels (which are not stratified).
        target: Label type.
        views: Number of views of each example; the first views of all examples come first.
        seed: Seed of the assignment.
        groups: Group number of each example; empty if every example is its own group.

    Returns:
        Fold numbers [examples x views], from 0.
    """
    strata: Any = np.zeros(len(labels), dtype=np.int64)
    if TARGETS[target].has_classes:
        strata = np.array(strata_of(labels))
    names = groups if len(groups) and len(set(groups)) > 1 else range(len(labels))
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    members = np.array([numbers[name] for name in names], dtype=np.int64)
    first = np.unique(members, return_index=True)[1]
    order = np.lexsort((np.random.default_rng(seed).random(len(first)), strata[first]))
    folds = np.empty(len(first), dtype=np.int64)
    folds[order] = np.arange(len(first)) % FOLDS
    return np.tile(folds[members], views)
