"""Run ``auto`` and its competitors on the datasets."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.auto.sets import SETS, AutoSet, make
from benchmarks.child import run_child
from benchmarks.inputs import LITE0, MINILM, ROOT
from benchmarks.kit.results import pack
from benchmarks.lanes import in_lanes

__all__ = [
    "AUTO",
    "AUTOGLUON",
    "CHECKPOINTS",
    "CHOOSE",
    "CONTENDERS",
    "FEATURES",
    "GRID",
    "LIMITS",
    "RECIPE",
    "STOCK",
    "Row",
    "grid_settings",
    "measured",
]

LIMITS = (60, 300, 900)
"""Time limits (seconds)."""
AUTO, FEATURES, RECIPE, STOCK = "auto", "frozen features", "shipped recipe", "stock script"
AUTOGLUON, GRID, CHOOSE = "AutoGluon", "grid", "choose"
CONTENDERS = (AUTO, FEATURES, RECIPE, STOCK, AUTOGLUON, GRID, CHOOSE)
FINISHED = 0.8
"""A contender that ends before this fraction of a limit has not been limited, and is not run with longer limits."""
STOCK_EPOCHS = (5, 10)
STOCK_RATES: Mapping[Path, tuple[float, float]] = {LITE0: (3e-3, 2e-3), MINILM: (1e-2, 1e-4)}
"""Learning rates of the stock script, those of the other benchmarks: for the head, and for all layers."""
CHECKPOINTS: Mapping[Path, tuple[str, ...]] = {
    LITE0: ("efficientnet-lite0", "efficientnet-lite1", "efficientnet-lite2"),
    MINILM: ("all-MiniLM-L6-v2", "all-mpnet-base-v2"),
}
"""Checkpoints of the grid, in ``assets``, by the default checkpoint."""
FROZEN = ("all-mpnet-base-v2",)
"""Checkpoints of the grid whose layers are not trained: a run would take more than an hour on one core."""
GRID_RATES: Mapping[Path, tuple[str, ...]] = {
    LITE0: ("3e-4", "1e-3", "3e-3"),
    MINILM: ("3e-5", "1e-4", "3e-4"),
}
GRID_LAYERS = ("auto", "all")


@dataclass(frozen=True)
class Row:
    """Result of one run.

    Attributes:
        name: Name of the dataset.
        contender: Name in ``CONTENDERS``.
        setting: Setting of the grid; empty for other contenders.
        seed: Seed of the test split and of all other randomness.
        limit: Time limit (seconds); 0 if there is none.
        right: Test examples that are predicted correctly, see ``benchmarks.kit.results.pack``.
        examples: Number of test examples.
        seconds: Duration of the whole run, without importing libraries.
        expected: Accuracy that ``auto`` expected on the test split; None for others.
        low: Lower end of its interval.
        high: Upper end of its interval.
        details: Fields of the recipe that ``auto`` selected, or scores of the checkpoints, as JSON.
        trials: Number of its trials.
    """

    name: str
    contender: str
    setting: str
    seed: int
    limit: int
    right: str
    examples: int
    seconds: float
    expected: float | None = None
    low: float | None = None
    high: float | None = None
    details: str = ""
    trials: int = 0


def measured(
    names: Sequence[str],
    contenders: Sequence[str],
    limits: Sequence[int],
    seeds: Sequence[int],
    lanes: int,
    known: Iterable[Row],
    peer_python: Path | None = None,
) -> Iterator[Row]:
    """Run contenders on datasets, except known runs.

    Args:
        names: Names of the datasets.
        contenders: Names in ``CONTENDERS``.
        limits: Time limits of the contenders that have one (seconds).
        seeds: Seeds.
        lanes: Number of parallel runs, each on its own cores.
        known: Rows of earlier runs.
        peer_python: Interpreter of AutoGluon's environment; without it, that contender is left out.

    Raises:
        ContenderError: If a run fails; runs that have not started are not done.
    """
    rows = list(known)
    run = [contender for contender in contenders if contender != AUTOGLUON or peer_python]
    for limit in limits:
        runs = [
            partial(_alone, name, contender, setting, seed, one_limit, make(name, seed), peer_python)
            for seed in seeds
            for name in names
            for contender in run
            for setting, one_limit in _settings(SETS[name], contender, limit)
            if not _is_known(rows, name, contender, setting, seed, one_limit)
        ]
        for row in in_lanes(runs, lanes):
            rows.append(row)
            yield row


def _settings(of: AutoSet, contender: str, limit: int) -> list[tuple[str, int]]:
    """Return the settings of a contender, with the limit of each."""
    if contender in (FEATURES, CHOOSE):
        return [("", 0)]
    return [(setting, 0) for setting in grid_settings(of)] if contender == GRID else [("", limit)]


def grid_settings(of: AutoSet) -> list[str]:
    """Return all settings of the grid of a dataset.

    Args:
        of: The dataset.
    """
    trained = [f"{train} {lr}" for train in GRID_LAYERS for lr in GRID_RATES[of.checkpoint]]
    return [
        f"{model} {rest}"
        for model in CHECKPOINTS[of.checkpoint]
        for rest in ("features", *(() if model in FROZEN else trained))
    ]


def _is_known(rows: Sequence[Row], name: str, contender: str, setting: str, seed: int, limit: int) -> bool:
    """Return whether a run is known: it was done, or it ended before a shorter limit."""
    return any(
        row.limit == limit or (contender != AUTO and row.seconds < FINISHED * row.limit and row.limit < limit)
        for row in rows
        if (row.name, row.contender, row.setting, row.seed) == (name, contender, setting, seed)
    )


def _alone(
    name: str,
    contender: str,
    setting: str,
    seed: int,
    limit: int,
    data: Path,
    peer_python: Path | None,
    cores: list[int],
) -> Row:
    module, work = _work(SETS[name], contender, setting, seed, limit, data)
    python = peer_python if contender == AUTOGLUON else None
    found = run_child(module, {**work, "cores": cores}, threads=len(cores), python=python)
    right = np.asarray(found.pop("right"))
    return Row(
        name=name,
        contender=contender,
        setting=setting,
        seed=seed,
        limit=limit,
        right=pack(right),
        examples=len(right),
        **{**found, "seconds": round(found["seconds"], 1)},
    )


def _work(
    of: AutoSet, contender: str, setting: str, seed: int, limit: int, data: Path
) -> tuple[str, dict[str, Any]]:
    """Return the module of a contender, and its argument."""
    if contender == AUTO:
        return "auto_run", {
            "data": str(data),
            "limit": limit,
            "trials": None,
            "quality": "good",
            "models": [],
        }
    if contender == FEATURES:
        models = [str(of.checkpoint)]
        return "auto_run", {
            "data": str(data),
            "limit": None,
            "trials": 1,
            "quality": "fast",
            "models": models,
        }
    if contender in (STOCK, AUTOGLUON):
        same = {
            **{"data": str(data), "checkpoint": str(of.checkpoint), "images": of.has_images, "seed": seed},
            **{"limit": limit, "batch_size": 32},
        }
        if contender == AUTOGLUON:
            return "autogluon_script", same
        return "stock_script", {**same, "epochs": STOCK_EPOCHS, "rates": STOCK_RATES[of.checkpoint]}
    if contender == CHOOSE:
        models = [str(ROOT / "assets" / model) for model in CHECKPOINTS[of.checkpoint]]
        return "choose_run", {"data": str(data), "models": models}
    overrides = [f"data.path={data}", f"seed={seed}"]
    if contender == RECIPE:
        overrides += [f"model.path={of.checkpoint}", f"limit.time={limit}s"]
        return "recipe_run", {"recipe": of.recipe, "overrides": overrides}
    model, train, *rate = setting.split()
    overrides += [f"model.path={ROOT / 'assets' / model}"]
    if rate:
        overrides += [f"stages.1.train={train}", f"stages.1.lr={rate[0]}", "stages.1.layer_decay=0.8"]
    else:
        overrides += ["strategy=features", "stages=null"]
        if model in FROZEN:  # the architecture's head has several layers, which no solver fits
            overrides += ["model.head.pool=auto"]
    return "recipe_run", {"recipe": of.recipe, "overrides": overrides}
