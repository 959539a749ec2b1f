"""Differences between a model and its baselines that were measured with several seeds."""

from collections.abc import Mapping, Sequence
from statistics import mean
from typing import Any

__all__ = ["OF_SEEDS", "over_seeds", "verdict_of_seeds"]

OF_SEEDS = "mean over the seeds, with the lowest and the highest end of the 95 % intervals of all seeds"
"""Words for what ``over_seeds`` returns."""

Tested = Mapping[str, Any]
"""Difference of a metric from that of a baseline, with its ``interval``."""


def over_seeds(tested: Sequence[Tested]) -> tuple[float, float, float]:
    """Return the mean difference of all seeds, and the lowest and the highest end of their intervals.

    Args:
        tested: Difference of each seed.
    """
    intervals = [each["interval"] for each in tested]
    difference = mean(each["difference"] for each in tested)
    return difference, min(low for low, _ in intervals), max(high for _, high in intervals)


def verdict_of_seeds(tested: Mapping[str, Sequence[Tested]], *, greater_is_better: bool = True) -> str:
    """Return words on the baselines that a model is, and is not, shown to be better than, and with how many seeds.

    Args:
        tested: Differences of the model from each baseline, one per seed, by its title.
        greater_is_better: Whether greater values of the metric are better.
    """
    titles: dict[str, list[str]] = {}
    for title, differences in tested.items():
        titles.setdefault(_phrase(differences, greater_is_better), []).append(title)
    return "; ".join(phrase.replace("{}", _listed(names)) for phrase, names in titles.items())


def _listed(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _phrase(differences: Sequence[Tested], greater_is_better: bool) -> str:
    above = sum(tested["interval"][0] > 0 for tested in differences)
    below = sum(tested["interval"][1] < 0 for tested in differences)
    better, worse = (above, below) if greater_is_better else (below, above)
    seeds = len(differences)
    if not better and not worse:
        return "not distinguishable from {}"
    counts = {"better than {}": better, "worse than {}": worse}
    every = " with every seed" if seeds > 1 else ""
    parts = [
        f"{words}{every if count == seeds else f' with {count} of {seeds} seeds'}"
        for words, count in counts.items()
        if count
    ]
    return " and ".join(parts)
