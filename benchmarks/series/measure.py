"""Train the shipped recipe of time series on the Tourism competition, and compare it with other forecasts."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.child import run_child
from benchmarks.series.competitions import make
from benchmarks.settings import runs_of_settings

__all__ = ["MEMBERS", "PRETRAINED", "SETTINGS", "Row", "measured"]

SCRATCH, PRETRAINED, AVERAGED = "from random weights", "pretrained on M1 and M3", "mean of three models"
SETTINGS = (SCRATCH, PRETRAINED, AVERAGED)
"""How the forecasts are made."""
MEMBERS: Mapping[str, int] = {AVERAGED: 3}
"""Number of models whose quantiles are averaged; 1 for other settings."""


@dataclass(frozen=True)
class Row:
    """Result of one run.

    Attributes:
        setting: Name in ``SETTINGS``.
        seed: Seed of the weights, and of the order of the examples.
        series: Number of test series.
        windows: Number of training examples.
        validation: MASE on the validation split.
        test: Metrics of the model.
        interval: 95 % confidence interval of each metric, by series.
        baselines: Metrics of each baseline.
        differences: Difference of each metric of the model from each baseline, with interval and verdict.
        seconds: Duration of training, without importing libraries and without the baselines.
    """

    setting: str
    seed: int
    series: int
    windows: int
    validation: float
    test: Mapping[str, float]
    interval: Mapping[str, Sequence[float]]
    baselines: Mapping[str, Mapping[str, float]]
    differences: Mapping[str, Mapping[str, Any]]
    seconds: float


def measured(names: Sequence[str], seeds: int, lanes: int, known: Iterable[Row]) -> Iterator[Row]:
    """Run settings with every seed, except known rows; see ``runs_of_settings``."""
    tables = {
        "tourism": make("tourism.csv", [("Tourism", "tcomp_data")]),
        "others": make("m1-m3.csv", [("M1", "m1_data"), ("M3", "m3_data")]),
    }
    yield from runs_of_settings(partial(_alone, tables), names, seeds, lanes, known)


def _alone(tables: Mapping[str, Path], setting: str, seed: int, cores: list[int]) -> Row:
    columns = ["data.columns={series: series, time: month, value: value}"]
    members = MEMBERS.get(setting, 1)
    work = {
        "recipe": "series/sales-csv",
        "overrides": [*columns, f"data.path={tables['tourism']}"],
        "seeds": [members * seed + member for member in range(members)],
        "pretraining": [*columns, f"data.path={tables['others']}", "data.on_error=skip", "stages.0.epochs=8"]
        if setting == PRETRAINED
        else [],
        "cores": cores,
    }
    return Row(setting=setting, seed=seed, **run_child("series_run", work, threads=len(cores)))
