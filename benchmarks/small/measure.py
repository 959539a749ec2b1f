"""Run the shipped recipes on the small datasets, with the default learning rates and with others."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.child import run_child
from benchmarks.inputs import LITE0, MINILM
from benchmarks.kit.results import pack
from benchmarks.lanes import in_lanes
from benchmarks.small.sets import SETS, make

__all__ = ["DEFAULTS", "SETTINGS", "Row", "measured"]

DEFAULTS = "defaults"
EVERYTHING = "stages.1.train=all"
MEAN, OWN_HEAD = "model.head={pool: mean}", "model.head={pool: own}"


def _rate(lr: str) -> tuple[str, str]:
    return f"stages.1.lr={lr}", "stages.1.layer_decay=0.9"


# Overrides of the recipe, for each checkpoint; its last stage is stages.1. A given learning rate needs the default
# layer decay and pooling too.
SETTINGS: Mapping[Path, Mapping[str, Sequence[str]]] = {
    LITE0: {
        DEFAULTS: (),
        "train: all": (EVERYTHING,),
        "train: all, lr: 3e-4": (EVERYTHING, "stages.1.lr=3e-4"),
        "train: all, lr: 3e-3": (EVERYTHING, "stages.1.lr=3e-3"),
    },
    MINILM: {
        DEFAULTS: (),
        "lr: 1e-4": (*_rate("1e-4"), MEAN),
        "pool: own": (OWN_HEAD,),
        "pool: own, lr: 1e-4": (OWN_HEAD, *_rate("1e-4")),
        "train: all, lr: 1e-4": (EVERYTHING, *_rate("1e-4"), MEAN),
        "train: all, pool: own": (EVERYTHING, OWN_HEAD),
        "train: all, pool: own, lr: 1e-4": (EVERYTHING, OWN_HEAD, *_rate("1e-4")),
        "train: all, pool: own, lr: 3e-4": (EVERYTHING, OWN_HEAD, *_rate("3e-4")),
    },
}


@dataclass(frozen=True)
class Row:
    """Result of one run.

    Attributes:
        name: Name of the dataset.
        setting: Name in ``SETTINGS``.
        seed: Seed of the recipe, which also determines the validation split.
        start: Accuracy on the validation split before the last stage.
        start_loss: Cross-entropy there.
        trained: Accuracy on the validation split at the best epoch of the last stage.
        trained_loss: Cross-entropy there.
        training: Number of training examples.
        validation: Number of validation examples.
        right: Test examples that the model predicts correctly, see ``benchmarks.kit.results.pack``.
        features_right: Test examples that the linear probe predicts correctly.
        examples: Number of test examples.
        seconds: Duration of the whole run, without importing libraries.
    """

    name: str
    setting: str
    seed: int
    start: float
    start_loss: float
    trained: float
    trained_loss: float
    training: int
    validation: int
    right: str
    features_right: str
    examples: int
    seconds: float


def measured(
    names: Sequence[str], seeds: int, lanes: int, known: Iterable[Row], settings: Sequence[str] = ()
) -> Iterator[Row]:
    """Run every setting on the datasets with every seed, except known ones.

    Args:
        names: Names of the datasets.
        seeds: Number of seeds: 0, 1, ...
        lanes: Number of parallel runs, each on its own cores.
        known: Rows of earlier runs.
        settings: Settings to run; empty for all.

    Raises:
        ContenderError: If a run fails; runs that have not started are not done.
    """
    there = {(row.name, row.setting, row.seed) for row in known}
    runs = [
        partial(_alone, name, setting, seed, make(name))
        for seed in range(seeds)
        for name in names
        for setting in SETTINGS[SETS[name].checkpoint]
        if (name, setting, seed) not in there and setting in (settings or [setting])
    ]
    yield from in_lanes(runs, lanes)


def _alone(name: str, setting: str, seed: int, data: Path, cores: list[int]) -> Row:
    of = SETS[name]
    overrides = [
        f"model.path={of.checkpoint}",
        f"data.path={data}",
        f"seed={seed}",
        *SETTINGS[of.checkpoint][setting],
    ]
    work = {"recipe": of.route, "overrides": overrides, "cores": cores}
    found = run_child("small_run", work, threads=len(cores))
    return Row(
        name=name,
        setting=setting,
        seed=seed,
        start=found["start"]["accuracy"],
        start_loss=found["start"]["loss"],
        trained=found["trained"]["accuracy"],
        trained_loss=found["trained"]["loss"],
        training=found["training"],
        validation=found["validation"],
        right=pack(np.asarray(found["right"])),
        features_right=pack(np.asarray(found["features_right"])),
        examples=len(found["right"]),
        seconds=round(found["seconds"], 1),
    )
