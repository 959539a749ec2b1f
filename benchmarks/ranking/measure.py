"""Train the shipped recipe for the ranking of dishes, and compare it with rankings by words and by embeddings."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.child import run_child
from benchmarks.inputs import MINILM
from benchmarks.ranking.dishes import make
from benchmarks.settings import runs_of_settings

__all__ = ["SETTINGS", "Row", "measured"]

RECIPE = "ranking/dishes-by-text"
SETTINGS: Mapping[str, Sequence[str]] = {
    "listwise": (),
    "pointwise": ("data.list_size=null", "stages.0.batch_size=32", "stages.0.epochs=0.4"),
}
"""Overrides of the shipped recipe, by the loss; both read about as many pairs."""


@dataclass(frozen=True)
class Row:
    """Result of one run.

    Attributes:
        setting: Name in ``SETTINGS``.
        seed: Seed of the division, of the candidates and of the order of the examples.
        queries: Number of test queries.
        pairs: Number of test pairs.
        test: Metrics of the model.
        interval: 95 % confidence interval of each metric, over the queries.
        baselines: Metrics of each baseline.
        differences: Difference of each metric of the model from each baseline, with interval and verdict.
        seconds: Duration of the run.
    """

    setting: str
    seed: int
    queries: int
    pairs: int
    test: Mapping[str, float]
    interval: Mapping[str, Sequence[float]]
    baselines: Mapping[str, Mapping[str, float]]
    differences: Mapping[str, Mapping[str, Any]]
    seconds: float


def measured(names: Sequence[str], seeds: int, lanes: int, known: Iterable[Row]) -> Iterator[Row]:
    """Run settings with every seed, except known rows; see ``runs_of_settings``."""
    return runs_of_settings(_alone, names, seeds, lanes, known)


def _alone(setting: str, seed: int, cores: list[int]) -> Row:
    overrides = [f"model.path={MINILM}", f"data.path={make(seed)}", f"seed={seed}", *SETTINGS[setting]]
    work = {"recipe": RECIPE, "overrides": overrides, "cores": cores}
    return Row(setting=setting, seed=seed, **run_child("ranking_run", work, threads=len(cores)))
