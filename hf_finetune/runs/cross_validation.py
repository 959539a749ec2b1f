"""Cross-validation: the whole recipe, stage by stage, once for each fold; a fold that is done stays done."""

import json
import logging
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from accelerate import PartialState

from hf_finetune.distributed import broadcast_from_main
from hf_finetune.recipe import Recipe
from hf_finetune.recipe.head_fit import fitted_by
from hf_finetune.runs.prepared import PreparedRun
from hf_finetune.tasks import TASKS, load_data
from hf_finetune.training.manifest import read_manifest

__all__ = ["check_folds", "cross_validate", "recipe_for_folds"]

logger = logging.getLogger(__name__)

Train = Callable[[Recipe, Path, bool], Any]


def check_folds(recipe: Recipe) -> None:
    """Check that the data can be divided into the folds that a recipe asks for, if it does.

    Raises:
        InputError: If it cannot.
    """
    count = recipe.evaluation.folds
    if count is not None:
        load_data(_of_fold(recipe, 1, count), TASKS[recipe.task].modality)


def cross_validate(recipe: Recipe, folder: Path, train: Train, state: PartialState) -> dict[str, Any]:
    """Run a recipe for each fold in ``RUN/folds``, or go on where an earlier call ended.

    Of a fold that is done its metrics, predictions and logs are kept, and no weights.

    Args:
        recipe: With ``evaluation.folds``.
        folder: The run directory.
        train: Runs a recipe in a folder; the last argument says whether it goes on.
        state: The processes; all of them call this.

    Returns:
        ``cross_validation`` of ``metrics.json``: mean, spread and value of each metric.
    """
    count = recipe.evaluation.folds or 0
    found = []
    for number in range(1, count + 1):
        place = folder / "folds" / f"{number}-of-{count}"
        how = broadcast_from_main(state, partial(_state_of, place))
        if how != "done":
            logger.info("Fold %d of %d %s.", number, count, "goes on" if how == "running" else "begins")
            train(_of_fold(recipe, number, count), place, how == "running")
            if state.is_main_process:
                _drop_weights(place)
        state.wait_for_everyone()
        found.append(json.loads((place / "metrics.json").read_text(encoding="utf-8"))["test"])
    return {"folds": count, "metrics": {name: _spread([each[name] for each in found]) for name in found[0]}}


def recipe_for_folds(prepared: PreparedRun) -> Recipe:
    """Return the recipe that is run for each fold.

    A pooling that was chosen on all training examples has seen those that a fold is tested on, so each fold chooses its
    own, on its own training examples. Where the head is trained in steps a fold cannot tell that the pooling was open.
    """
    if prepared.pooling is not None and all(fitted_by(stage) for stage in prepared.recipe.stages):
        return prepared.pooling.before.requested
    return prepared.requested


def _state_of(place: Path) -> str:
    """Say whether a fold is ``done``, ``running``, or has left nothing (empty)."""
    if not (place / "manifest.json").is_file():
        shutil.rmtree(place, ignore_errors=True)  # it was killed before its first line
        return ""
    return "done" if read_manifest(place / "manifest.json").state == "done" else "running"


def _of_fold(recipe: Recipe, number: int, count: int) -> Recipe:
    """Give the recipe of one fold. It can be run on its own."""
    split = recipe.data.split.model_copy(update={"fold": f"{number}/{count}"})
    data = recipe.data.model_copy(update={"split": split})
    evaluation = recipe.evaluation.model_copy(update={"folds": None, "linear_probe": None})
    return recipe.model_copy(update={"data": data, "evaluation": evaluation, "publish": None})


def _drop_weights(place: Path) -> None:
    shutil.rmtree(place / "model", ignore_errors=True)
    shutil.rmtree(place / "adapter", ignore_errors=True)
    for file in place.glob("stages/**/*.safetensors"):
        file.unlink()


def _spread(values: list[float | None]) -> dict[str, Any]:
    """Give mean and standard deviation over the folds; null where a fold has no value."""
    known = [value for value in values if value is not None]
    whole = len(known) == len(values)
    return {
        "mean": mean(known) if whole else None,
        "std": stdev(known) if whole and len(known) > 1 else None,
        "values": values,
    }
