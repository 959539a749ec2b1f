"""Train the shipped recipe for purchases on the customers of CDNOW, and compare it with simple models."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.child import run_child
from benchmarks.events.cdnow import make
from benchmarks.settings import runs_of_settings

__all__ = ["DATE", "SETTINGS", "Row", "measured"]

DATE = "1997-09-30"
SETTINGS: Mapping[str, Sequence[str]] = {"2 layers, hidden size 64": ()}
"""Overrides of the shipped recipe."""


@dataclass(frozen=True)
class Row:
    """Result of one run.

    Attributes:
        setting: Name in ``SETTINGS``.
        seed: Seed of the validation split, of the weights and of the order of the examples.
        customers: Number of test examples.
        positive: Fraction of them that buy in the next 13 weeks.
        test: Metrics of the model.
        interval: 95 % confidence interval of its ROC AUC.
        baselines: Metrics of each baseline.
        differences: Difference of the ROC AUC of the model from each baseline, with interval and verdict.
        recency: ROC AUC of the time since the last purchase alone.
    """

    setting: str
    seed: int
    customers: int
    positive: float
    test: Mapping[str, float]
    interval: Sequence[float]
    baselines: Mapping[str, Mapping[str, float]]
    differences: Mapping[str, Any]
    recency: float


def measured(names: Sequence[str], seeds: int, lanes: int, known: Iterable[Row]) -> Iterator[Row]:
    """Run settings with every seed, except known rows; see ``runs_of_settings``."""
    return runs_of_settings(partial(_alone, make()), names, seeds, lanes, known)


def _alone(data: Path, setting: str, seed: int, cores: list[int]) -> Row:
    overrides = [f"data.path={data}", f"data.split.time={DATE}", f"seed={seed}", *SETTINGS[setting]]
    work = {"recipe": "events/buys-again", "overrides": overrides, "cores": cores}
    return Row(setting=setting, seed=seed, **run_child("events_run", work, threads=len(cores)))
