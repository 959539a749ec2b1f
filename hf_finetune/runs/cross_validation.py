"""Cross-validation: the whole recipe is run once per fold; folds that are done are not repeated."""

import json
import logging
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from accelerate import PartialState

from hf_finetune.data.recipe_data import load_data
from hf_finetune.distributed import broadcast_from_main
from hf_finetune.fields.durations import format_duration
from hf_finetune.recipe.head_fit import solver_of
from hf_finetune.recipe.limit import LimitSpec
from hf_finetune.recipe.schema import Recipe
from hf_finetune.runs.prepared import PreparedRun
from hf_finetune.training.manifest import read_manifest

__all__ = ["check_folds", "cross_validate", "recipe_for_folds", "recipe_of_fold"]

logger = logging.getLogger(__name__)

Train = Callable[[Recipe, Path, bool], Any]


def check_folds(recipe: Recipe) -> None:
    """Check that the data can be divided into the folds of a recipe, if it has any.

    Raises:
        InputError: If the data cannot be divided.
    """
    count = recipe.evaluation.folds
    if count is not None:
        load_data(recipe_of_fold(recipe, 1, count))


def cross_validate(recipe: Recipe, folder: Path, train: Train, state: PartialState) -> dict[str, Any]:
    """Run a recipe once per fold, in ``RUN/folds``; an interrupted cross-validation continues.

    Metrics, predictions and logs of a fold are kept; its weights are deleted.

    Args:
        recipe: Recipe with ``evaluation.folds``.
        folder: Run directory.
        train: Function that runs a recipe in a folder; its last argument is whether to resume the run there.
        state: Process state; all processes must call this function.

    Returns:
        ``cross_validation`` of ``metrics.json``: for each metric the mean, the standard deviation and the value of
        each fold.
    """
    count = recipe.evaluation.folds or 0
    results = []
    for number in range(1, count + 1):
        fold_folder = folder / "folds" / f"{number}-of-{count}"
        progress = broadcast_from_main(state, partial(_prepare_fold_folder, fold_folder))
        if progress != "done":
            logger.info("Fold %d of %d %s.", number, count, "resumes" if progress == "running" else "starts")
            train(recipe_of_fold(recipe, number, count), fold_folder, progress == "running")
            if state.is_main_process:
                _drop_weights(fold_folder)
        state.wait_for_everyone()
        results.append(json.loads((fold_folder / "metrics.json").read_text(encoding="utf-8"))["test"])
    return {
        "folds": count,
        "metrics": {name: _mean_and_std([result[name] for result in results]) for name in results[0]},
    }


def recipe_for_folds(prepared: PreparedRun) -> Recipe:
    """Return the recipe that is run for each fold.

    A token pooling chosen on all training examples would leak the examples on which a fold is tested. So, if all stages
    fit the head with a solver, each fold chooses the pooling again on its own training examples. If a stage takes
    gradient steps, the expanded recipe does not show that the pooling is open, and the folds use the chosen one.
    """
    if prepared.pooling is not None and all(solver_of(spec) for spec in prepared.recipe.stages):
        return prepared.pooling.before.requested
    return prepared.requested


def _prepare_fold_folder(fold_folder: Path) -> str:
    """Remove the folder of a fold that was killed before its manifest was written, and return the state of the fold.

    It is ``done``, ``running``, or empty if the fold has not started.
    """
    if not (fold_folder / "manifest.json").is_file():
        shutil.rmtree(fold_folder, ignore_errors=True)  # killed before the manifest was written
        return ""
    return "done" if read_manifest(fold_folder / "manifest.json").state == "done" else "running"


def recipe_of_fold(recipe: Recipe, number: int, count: int) -> Recipe:
    """Return the recipe of one fold, which can also be run by itself.

    Args:
        recipe: Recipe of the whole run.
        number: Number of the fold, counted from 1.
        count: Number of folds.
    """
    split = recipe.data.split.model_copy(update={"fold": f"{number}/{count}"})
    data = recipe.data.model_copy(update={"split": split})
    evaluation = recipe.evaluation.model_copy(update={"folds": None, "linear_probe": None})
    limit = recipe.limit
    if limit is not None:  # the run trains count + 1 times
        limit = LimitSpec(time=format_duration(limit.seconds / (count + 1)))
    changes = {"data": data, "evaluation": evaluation, "limit": limit, "publish": None}
    return recipe.model_copy(update=changes)


def _drop_weights(fold_folder: Path) -> None:
    shutil.rmtree(fold_folder / "model", ignore_errors=True)
    shutil.rmtree(fold_folder / "adapter", ignore_errors=True)
    for file in fold_folder.glob("stages/**/*.safetensors"):
        file.unlink()


def _mean_and_std(values: list[float | None]) -> dict[str, Any]:
    """Return mean and standard deviation over the folds, None if a fold has no value, and the value of each fold."""
    known = [value for value in values if value is not None]
    all_defined = len(known) == len(values)
    return {
        "mean": mean(known) if all_defined else None,
        "std": stdev(known) if all_defined and len(known) > 1 else None,
        "values": values,
    }
