"""Run the settings of a group, and measure their effects and costs."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.child import run_child
from benchmarks.kit import data
from benchmarks.kit.groups import GROUPS, recipe_of
from benchmarks.kit.results import Cost, Effect, Results, digest, pack
from benchmarks.lanes import in_lanes, shares

__all__ = ["current", "digest_of", "measured"]


def current(results: Results) -> Results:
    """Return the results without rows of groups, settings and recipes that are out of date."""

    def holds(group: str, setting: str, seed: int, made: str) -> bool:
        known = group in GROUPS and setting in GROUPS[group].settings
        return known and digest_of(group, setting, seed) == made

    return replace(
        results,
        effects=tuple(row for row in results.effects if holds(row.group, row.setting, row.seed, row.digest)),
        costs=tuple(row for row in results.costs if holds(row.group, row.setting, row.seed, row.digest)),
    )


def measured(
    names: Sequence[str], seeds: int, lanes: int, scratch: Path, known: Results
) -> Iterator[tuple[Effect, Cost]]:
    """Run every setting of the groups with every seed, except known ones.

    Each runs in its own process with an empty cache, all on the same number of cores. All settings of a group and seed
    run before the next ones.

    Args:
        names: Names of the groups.
        seeds: Number of seeds: 0, 1, ...
        lanes: Number of parallel runs, each on its own cores.
        scratch: Empty folder.
        known: Results of earlier runs.

    Raises:
        ContenderError: If a run fails; runs that have not started are not done.
    """
    there = {(row.group, row.setting, row.seed) for row in known.effects}
    machine = _machine(lanes)
    runs = [
        partial(_alone, name, setting, seed, scratch, machine)
        for name in names
        for seed in range(seeds)
        for setting in GROUPS[name].settings
        if (name, setting, seed) not in there
    ]
    yield from in_lanes(runs, lanes)


def _alone(
    name: str, setting: str, seed: int, scratch: Path, machine: str, cores: list[int]
) -> tuple[Effect, Cost]:
    group = GROUPS[name]
    number = list(group.settings).index(setting)
    recipe = recipe_of(group, setting, group.data(scratch / f"{name}-{seed}-{number}", seed), seed)
    task = group.task if "tasks" in recipe else None
    found = run_child("judged", {"recipe": recipe, "task": task, "cores": cores}, threads=len(cores))
    right = np.asarray(found["right"])
    weights = _equal_classes(np.asarray(found["labels"])) if group.metric == "balanced_accuracy" else ()
    place = (name, setting, seed, digest_of(name, setting, seed))
    effect = Effect(*place, float(found["test"][group.metric]), pack(right), weights, len(right))
    return effect, Cost(*place, machine, found["seconds"], found["peak_bytes"])


def digest_of(name: str, setting: str, seed: int) -> str:
    """Return the digest of a run's recipe, independent of the location of its data, and of how the data is drawn."""
    return digest({**recipe_of(GROUPS[name], setting, "", seed), "cut": data.cut()})


def _machine(lanes: int) -> str:
    each = len(shares(lanes)[0])
    cores = f"{each} CPU core{'s' if each > 1 else ''}"
    return cores if lanes == 1 else f"{cores} per run, {lanes} runs in parallel"


def _equal_classes(labels: np.ndarray) -> tuple[float, ...]:
    """Return example weights, with mean 1, that weight all classes equally; empty if all are 1."""
    classes, places, counts = np.unique(labels, return_inverse=True, return_counts=True)
    weights = (len(labels) / (len(classes) * counts))[places]
    return tuple(round(weight, 6) for weight in weights.tolist()) if len(set(counts)) > 1 else ()
