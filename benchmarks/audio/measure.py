"""Train classifiers of drum sounds, each fold with kits that do not occur in training."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.audio.drums import make
from benchmarks.child import run_child
from benchmarks.inputs import ROOT
from benchmarks.kit.results import pack
from benchmarks.lanes import in_lanes

__all__ = ["FOLDS", "SETTINGS", "Row", "measured"]

FOLDS = 4
CHECKPOINT = ROOT / "assets" / "whisper-base"
HEAD = "{name: head, train: head, epochs: 30, lr: 1e-3, batch_size: 16}"
WEIGHTED = ("strategy=null", "model.head.layers=weighted")
SETTINGS: Mapping[str, Sequence[str]] = {
    "the layer that is chosen by cross-validation": (),
    "inputs of 1 second": ("data.max_seconds=1",),
    "last layer": ("model.head.layers=last",),
    "weighted sum of all layers": (*WEIGHTED, f"stages=[{HEAD}]"),
}
"""Overrides of the shipped recipe."""


@dataclass(frozen=True)
class Row:
    """Result of one run.

    Attributes:
        setting: Name in ``SETTINGS``.
        seed: Seed of the division into folds, and of all other randomness.
        fold: Fold that is the test split, from 1.
        kits: Kit of each test example.
        right: Test examples that the model predicts correctly, see ``benchmarks.kit.results.pack``.
        log_mel_right: The same of the baseline on log-mel statistics.
        majority_right: The same of the largest class.
        seconds: Duration of the whole run, without importing libraries.
    """

    setting: str
    seed: int
    fold: int
    kits: tuple[str, ...]
    right: str
    log_mel_right: str
    majority_right: str
    seconds: float


def measured(names: Sequence[str], seeds: int, lanes: int, known: Iterable[Row]) -> Iterator[Row]:
    """Run settings on all folds with every seed, except known rows.

    Args:
        names: Names in ``SETTINGS``.
        seeds: Number of seeds: 0, 1, ...
        lanes: Number of parallel runs, each on its own cores.
        known: Rows of earlier runs.

    Raises:
        ContenderError: If a run fails; runs that have not started are not done.
    """
    there = {(row.setting, row.seed, row.fold) for row in known}
    data = make()
    runs = [
        partial(_alone, name, seed, fold, data)
        for seed in range(seeds)
        for name in names
        for fold in range(1, FOLDS + 1)
        if (name, seed, fold) not in there
    ]
    yield from in_lanes(runs, lanes)


def _alone(setting: str, seed: int, fold: int, data: Path, cores: list[int]) -> Row:
    overrides = [
        f"model.path={CHECKPOINT}",
        f"data.path={data}",
        f"data.split={{group: kit, fold: {fold}/{FOLDS}, validation: 0.2, test: 0}}",
        "data.max_seconds=2",
        f"seed={seed}",
        *SETTINGS[setting],
    ]
    work = {"recipe": "audio/sounds-folder", "overrides": overrides, "cores": cores}
    found = run_child("audio_run", work, threads=len(cores))
    return Row(
        setting=setting,
        seed=seed,
        fold=fold,
        kits=tuple(found["kits"]),
        right=pack(np.asarray(found["model"])),
        log_mel_right=pack(np.asarray(found["log_mel"])),
        majority_right=pack(np.asarray(found["majority"])),
        seconds=round(found["seconds"], 1),
    )
