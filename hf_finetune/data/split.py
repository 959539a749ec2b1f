"""Cut splits and subsets out of data: pure functions on row numbers, the same for the same seed."""

from collections.abc import Hashable, Mapping, Sequence

import numpy as np
from sklearn.model_selection import GroupShuffleSplit

__all__ = ["choose_subset", "cut_by_group", "cut_splits", "strata_of"]

_GROUP_DRAWS = 64


def strata_of(labels: Sequence[int] | Sequence[Sequence[int]]) -> list[int]:
    """Give each example the class it is spread over the splits by: of several the rarest, of none -1."""
    sets = [label if isinstance(label, Sequence) else [label] for label in labels]
    counts: dict[int, int] = {}
    for label_set in sets:
        for index in label_set:
            counts[index] = counts.get(index, 0) + 1
    return [min(label_set, key=lambda index: (counts[index], index), default=-1) for label_set in sets]


def cut_splits(
    keys: Sequence[Hashable], strata: Sequence[int] | None, fractions: Mapping[str, float], seed: int
) -> dict[str, np.ndarray]:
    """Cut splits off, each with its share of every stratum.

    Rows of equal key stay together, so that no copy of an example lands on the other side. A stratum
    gives at least one example to every split, and keeps at least one in train; one that is too small for
    that stays in train whole.

    Args:
        keys: What tells examples apart.
        strata: The stratum of each row. None draws from all rows alike.
        fractions: The share of all rows for each split to cut, in (0, 1); together below 1.
        seed: Chooses the rows.

    Returns:
        Sorted row numbers of ``train`` and of each split cut.
    """
    first_rows: dict[Hashable, int] = {}
    for row, key in enumerate(keys):
        first_rows.setdefault(key, row)
    unique = np.array(list(first_rows.values()), dtype=np.int64)
    kinds = np.zeros(len(unique), dtype=np.int64) if strata is None else np.array(strata)[unique]
    rng = np.random.default_rng(seed)
    place: dict[Hashable, str] = {}
    for kind in np.unique(kinds):
        members = rng.permutation(unique[kinds == kind])
        start = 0
        if len(members) > len(fractions):
            for name, size in _shares(len(members), fractions).items():
                place.update({keys[row]: name for row in members[start : start + size]})
                start += size
    return {
        name: np.array(
            [row for row, key in enumerate(keys) if place.get(key, "train") == name], dtype=np.int64
        )
        for name in ("train", *fractions)
    }


def _shares(count: int, fractions: Mapping[str, float]) -> dict[str, int]:
    """Round the shares of ``count`` examples, at least one each and one left over."""
    shares = {name: max(1, round(count * fraction)) for name, fraction in fractions.items()}
    while sum(shares.values()) >= count:
        shares[max(shares, key=lambda name: shares[name])] -= 1
    return shares


def cut_by_group(
    groups: Sequence[Hashable], strata: Sequence[int] | None, fractions: Mapping[str, float], seed: int
) -> dict[str, np.ndarray]:
    """Cut splits off by whole groups, each as near to its share of the rows as the groups allow.

    Args:
        groups: The group of each row, at least one group more than splits to cut.
        strata: The stratum of each row: spread as evenly as the groups allow, and none taken out of train
            whole where that can be helped. None does not look at it.
        fractions: The share of all rows for each split to cut, in (0, 1); together below 1.
        seed: Chooses the groups.

    Returns:
        Sorted row numbers of ``train`` and of each split cut.
    """
    numbers = np.unique(np.array([str(group) for group in groups]), return_inverse=True)[1]
    kinds = (
        np.zeros(len(groups), dtype=np.int64) if strata is None else np.unique(strata, return_inverse=True)[1]
    )
    rest = np.arange(len(groups))
    cut = {}
    for done, (name, fraction) in enumerate(fractions.items()):
        left_behind = len(fractions) - done  # a group for each split still to come, and one for train
        held_out = _draw_groups(numbers[rest], kinds[rest], np.bincount(kinds) * fraction, left_behind, seed)
        cut[name] = rest[held_out]
        rest = np.setdiff1d(rest, cut[name])
    return {"train": rest, **cut}


def _draw_groups(
    groups: np.ndarray, kinds: np.ndarray, wanted: np.ndarray, left_behind: int, seed: int
) -> np.ndarray:
    """Draw groups many times and take the draw nearest to the number ``wanted`` of each kind."""
    count = len(np.unique(groups))
    size = min(max(1, round(count * wanted.sum() / len(groups))), count - left_behind)
    here = np.bincount(kinds, minlength=len(wanted))

    def distance(rows: np.ndarray) -> float:
        held_out = np.bincount(kinds[rows], minlength=len(wanted))
        lost = np.count_nonzero((held_out == here) & (here > 0))
        return float(lost * len(groups) + np.abs(held_out - wanted).sum() + abs(len(rows) - wanted.sum()))

    splitter = GroupShuffleSplit(_GROUP_DRAWS, test_size=size, random_state=seed)
    return min((held_out for _, held_out in splitter.split(groups, groups=groups)), key=distance)


def choose_subset(strata: Sequence[int] | None, count: int, limit: int, seed: int) -> np.ndarray:
    """Choose ``limit`` of ``count`` rows, of each stratum its share, and one each where the limit allows.

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
    urgency = np.empty(count)
    for row in shuffled:
        # The k-th example of a stratum of n stands at k/n: the first ones of all strata come first.
        position = seen.get(kinds[row], 0)
        urgency[row] = position / sizes[kinds[row]]
        seen[kinds[row]] = position + 1
    order = shuffled[np.argsort(urgency[shuffled], kind="stable")]
    return np.sort(order[:limit])
