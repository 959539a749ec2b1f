"""Run the settings of a group: what each gives, in this process; what each costs, in a process of its own."""

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as parquet

from benchmarks.child import run_child
from benchmarks.kit.groups import GROUPS, OWN_TASK, recipe_of
from benchmarks.kit.results import Cost, Effect, Results, digest, pack
from hf_finetune.recipe import parse_recipe
from hf_finetune.run import run

__all__ = ["costs", "current", "effects"]


def current(results: Results) -> Results:
    """Leave out rows of groups, settings and recipes that are no longer what is compared."""

    def holds(group: str, setting: str, seed: int, made: str) -> bool:
        known = group in GROUPS and setting in GROUPS[group].settings
        return known and digest(recipe_of(GROUPS[group], setting, "", seed)) == made

    return replace(
        results,
        effects=tuple(row for row in results.effects if holds(row.group, row.setting, row.seed, row.digest)),
        costs=tuple(row for row in results.costs if holds(row.group, row.setting, 0, row.digest)),
    )


def effects(name: str, seeds: int, scratch: Path, known: Results) -> Iterator[Effect]:
    """Run every setting of a group with every seed, but for those that are known.

    Args:
        name: Of the group.
        seeds: 0, 1, ... so many.
        scratch: An empty folder; what frozen layers give is kept there for all settings.
        known: What was measured before.
    """
    group = GROUPS[name]
    there = {(row.group, row.setting, row.seed): row.digest for row in known.effects}
    os.environ["HF_FINETUNE_CACHE"] = str(scratch / "cache")
    for seed in range(seeds):
        path = group.data(scratch / f"{name}-{seed}", seed)
        for number, setting in enumerate(group.settings):
            recipe = recipe_of(group, setting, path, seed)
            made = digest(recipe_of(group, setting, "", seed))
            if there.get((name, setting, seed)) == made:
                continue
            done = run(parse_recipe(recipe), scratch / f"run-{name}-{seed}-{number}")
            labels, right = _judged(done.folder, "tasks" in recipe)
            weights = _equal_classes(labels) if group.metric == "balanced_accuracy" else ()
            prefix = f"{OWN_TASK}/" if "tasks" in recipe else ""
            value = float(done.metrics["test"][prefix + group.metric])
            yield Effect(name, setting, seed, made, value, pack(right), weights, len(right))


def costs(name: str, rounds: int, scratch: Path) -> Iterator[Cost]:
    """Run every setting of a group alone, one after the other, round after round.

    Raises:
        ContenderError: If one of them fails.
    """
    group = GROUPS[name]
    path = group.data(scratch / f"{name}-0", 0)
    for number in range(rounds):
        for setting in group.settings:
            recipe = recipe_of(group, setting, path, 0)
            answer = run_child("ours", {"recipe": recipe, "seed": 0})
            yield Cost(
                name,
                setting,
                number,
                digest(recipe_of(group, setting, "", 0)),
                answer["seconds"],
                answer["peak_bytes"],
            )


def _judged(run: Path, several: bool) -> tuple[np.ndarray, np.ndarray]:
    """Give the labels of the test examples, and which of them were found, in the order of their ids."""
    path = (run / "tasks" / OWN_TASK if several else run) / "predictions.parquet"
    table = parquet.read_table(path, columns=["id", "label", "prediction"]).sort_by("id")
    labels = np.asarray(table["label"].to_pylist())
    return labels, labels == np.asarray(table["prediction"].to_pylist())


def _equal_classes(labels: np.ndarray) -> tuple[float, ...]:
    """Let each class count as much as every other one; the mean weight is 1, and none are needed where all are."""
    classes, places, counts = np.unique(labels, return_inverse=True, return_counts=True)
    weights = (len(labels) / (len(classes) * counts))[places]
    return tuple(round(weight, 6) for weight in weights.tolist()) if len(set(counts)) > 1 else ()
