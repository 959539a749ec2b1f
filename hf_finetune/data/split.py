"""Selection of rows for splits and subsets: pure functions that are deterministic for a seed."""

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence

import numpy as np

from hf_finetune.fields.lazy_module import LazyModule

__all__ = ["choose_subset", "create_grouped_splits", "create_splits", "strata_of"]

_GROUP_SAMPLES = 64
model_selection = LazyModule("sklearn.model_selection")


def strata_of(labels: Sequence[int] | Sequence[Sequence[int]]) -> list[int]:
    """Return the stratum of each example: its rarest class, or -1 if it has no class."""
    sets = [label if isinstance(label, Sequence) else [label] for label in labels]
    counts = Counter(index for label_set in sets for index in label_set)
    return [min(label_set, key=lambda index: (counts[index], index), default=-1) for label_set in sets]


def create_splits(
    keys: Sequence[Hashable], strata: Sequence[int] | None, fractions: Mapping[str, float], seed: int
) -> dict[str, np.ndarray]:
    """Split rows into train and the requested splits, stratified by ``strata``.

    Rows with equal keys stay together, so that no copy of an example is in two splits. Each stratum contributes at
    least one example to every split, including train; a stratum that is too small for that stays in train.

    Args:
        keys: Content key of each row; equal keys mark copies of an example.
        strata: Stratum of each row. None splits without stratification.
        fractions: Fraction of all rows of each requested split, in (0, 1); the sum must be below 1.
        seed: Seed of the random choice.

    Returns:
        Sorted row numbers of ``train`` and of each requested split.
    """
    first_rows: dict[Hashable, int] = {}
    for row, key in enumerate(keys):
        first_rows.setdefault(key, row)
    unique = np.array(list(first_rows.values()), dtype=np.int64)
    kinds = np.zeros(len(unique), dtype=np.int64) if strata is None else np.array(strata)[unique]
    rng = np.random.default_rng(seed)
    split_of_key: dict[Hashable, str] = {}
    for kind in np.unique(kinds):
        members = rng.permutation(unique[kinds == kind])
        start = 0
        if len(members) > len(fractions):
            for name, size in _split_sizes(len(members), fractions).items():
                split_of_key.update({keys[row]: name for row in members[start : start + size]})
                start += size
    cut = {}
    for name in ("train", *fractions):
        rows = [row for row, key in enumerate(keys) if split_of_key.get(key, "train") == name]
        cut[name] = np.array(rows, dtype=np.int64)
    return cut


def _split_sizes(count: int, fractions: Mapping[str, float]) -> dict[str, int]:
    """Return the number of examples of each split, at least one each, with at least one of ``count`` left for train."""
    sizes = {name: max(1, round(count * fraction)) for name, fraction in fractions.items()}
    while sum(sizes.values()) >= count:
        sizes[max(sizes, key=lambda name: sizes[name])] -= 1
    return sizes


def create_grouped_splits(
    groups: Sequence[Hashable], strata: Sequence[int] | None, fractions: Mapping[str, float], seed: int
) -> dict[str, np.ndarray]:
    """Split rows by whole groups into train and splits whose sizes are as close to the fractions as possible.

    Args:
        groups: Group of each row; at least ``len(fractions) + 1`` groups are needed.
        strata: Stratum of each row, distributed as evenly as the groups allow; if possible, no stratum is removed from
            train completely. None splits without stratification.
        fractions: Fraction of all rows of each requested split, in (0, 1); the sum must be below 1.
        seed: Seed of the random choice.

    Returns:
        Sorted row numbers of ``train`` and of each requested split.
    """
    numbers = np.unique(np.array([str(group) for group in groups]), return_inverse=True)[1]
    kinds = np.unique([0] * len(groups) if strata is None else strata, return_inverse=True)[1]
    remaining = np.arange(len(groups))
    cut = {}
    for done, (name, fraction) in enumerate(fractions.items()):
        min_remaining = len(fractions) - done  # one group for each further split, and one for train
        wanted = np.bincount(kinds) * fraction
        held_out = _choose_groups(numbers[remaining], kinds[remaining], wanted, min_remaining, seed)
        cut[name] = remaining[held_out]
        remaining = np.setdiff1d(remaining, cut[name])
    return {"train": remaining, **cut}


def _choose_groups(
    groups: np.ndarray, kinds: np.ndarray, wanted: np.ndarray, min_remaining: int, seed: int
) -> np.ndarray:
    """Return the rows held out by the best of ``_GROUP_SAMPLES`` random choices of groups.

    The best is the closest to the ``wanted`` rows of each stratum [strata]; ``min_remaining`` groups must remain.
    """
    count = len(np.unique(groups))
    size = min(max(1, round(count * wanted.sum() / len(groups))), count - min_remaining)
    class_counts = np.bincount(kinds, minlength=len(wanted))

    def distance(rows: np.ndarray) -> float:
        held_out = np.bincount(kinds[rows], minlength=len(wanted))
        lost = np.count_nonzero((held_out == class_counts) & (class_counts > 0))
        return float(lost * len(groups) + np.abs(held_out - wanted).sum() + abs(len(rows) - wanted.sum()))

    splitter = model_selection.GroupShuffleSplit(_GROUP_SAMPLES, test_size=size, random_state=seed)
    return min((held_out for _, held_out in splitter.split(groups, groups=groups)), key=distance)


def choose_subset(strata: Sequence[int] | None, count: int, limit: int, seed: int) -> np.ndarray:
    """Choose ``limit`` of ``count`` rows, stratified, with at least one row per stratum if the limit allows.

    Args:
        strata: Stratum of each row. None chooses without stratification.
        count: Number of rows.
        limit: Number of rows to choose; all rows if there are no more.
        seed: Seed of the random choice.

    Returns:
        Sorted row numbers.
    """
    rng = np.random.default_rng(seed)
    if limit >= count:
        return np.arange(count)
    shuffled = rng.permutation(count)
    kinds = np.zeros(count, dtype=np.int64) if strata is None else np.array(strata)
    sizes = dict(zip(*np.unique(kinds, return_counts=True), strict=True))
    seen: dict[int, int] = {}
    priority = np.empty(count)
    for row in shuffled:
        # The k-th example of a stratum of size n is ranked by k/n, so the first example of every stratum comes first.
        position = seen.get(kinds[row], 0)
        priority[row] = position / sizes[kinds[row]]
        seen[kinds[row]] = position + 1
    order = shuffled[np.argsort(priority[shuffled], kind="stable")]
    return np.sort(order[:limit])
