"""Train the shipped recipe for films on MovieLens 100K, and compare it with other recommenders."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.child import run_child
from benchmarks.items.movielens import make, make_lists
from benchmarks.settings import runs_of_settings

__all__ = ["DATE", "SETTINGS", "Row", "measured"]

DATE = "1998-02-15"
BY_DATE, LEAVE_ONE_OUT = "by date", "leave one out"
_LISTS = (
    "data.columns.customer=",
    "data.columns.time=",
    "data.columns.item=",
    "data.split.time=",
)
SETTINGS: Mapping[str, Sequence[str]] = {
    BY_DATE: (f"data.split.time={DATE}",),
    LEAVE_ONE_OUT: _LISTS,
}
"""Overrides of the shipped recipe, by the division of the data."""


@dataclass(frozen=True)
class Row:
    """Result of one run.

    Attributes:
        setting: Name in ``SETTINGS``.
        seed: Seed of the weights, of the masks and of the order of the examples.
        items: Number of items that are ranked.
        examples: Number of test examples.
        new: Number of them whose label is no item of the training split.
        validation: Validation metrics of the kept weights.
        test: Metrics of the model.
        interval: 95 % confidence interval of each metric.
        baselines: Metrics of each baseline.
        differences: Difference of each metric of the model from each baseline, with interval and verdict.
    """

    setting: str
    seed: int
    items: int
    examples: int
    new: int
    validation: Mapping[str, float]
    test: Mapping[str, float]
    interval: Mapping[str, Sequence[float]]
    baselines: Mapping[str, Mapping[str, float]]
    differences: Mapping[str, Mapping[str, Any]]


def measured(names: Sequence[str], seeds: int, lanes: int, known: Iterable[Row]) -> Iterator[Row]:
    """Run settings with every seed, except known rows; see ``runs_of_settings``."""
    ratings = make()
    paths = {BY_DATE: ratings, LEAVE_ONE_OUT: make_lists(ratings)}
    return runs_of_settings(partial(_alone, paths), names, seeds, lanes, known)


def _alone(paths: Mapping[str, Path], setting: str, seed: int, cores: list[int]) -> Row:
    overrides = [f"data.path={paths[setting]}", f"seed={seed}", *SETTINGS[setting]]
    work = {"recipe": "items/next-film", "overrides": overrides, "cores": cores}
    return Row(setting=setting, seed=seed, **run_child("items_run", work, threads=len(cores)))
