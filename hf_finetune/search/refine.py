"""Search around the best trial of a race: learning rate and number of epochs of its last stage."""

import hashlib
from contextlib import ExitStack
from math import inf
from pathlib import Path

from hf_finetune.distributed import broadcast_from_main
from hf_finetune.evaluation.metrics import greater_is_better, sign_of
from hf_finetune.recipe.schema import Recipe
from hf_finetune.runs.prepare import prepare_with_data
from hf_finetune.search.race import Race
from hf_finetune.search.race_time import trains
from hf_finetune.search.selection import select
from hf_finetune.search.space import SearchSpace, read_space
from hf_finetune.search.study import Study
from hf_finetune.search.trials import Trial
from hf_finetune.search.tune import TrialLoop, read_trials

__all__ = ["refine"]

FACTOR = 5.0
"""Factor by which the learning rate is varied in both directions."""


def refine(race: Race, folder: Path, max_trials: int | None) -> None:
    """Search the learning rate and the number of epochs of the best trial that trains layers.

    Args:
        race: Race whose contenders are judged; the trials of this search are added to it.
        folder: Folder of the search.
        max_trials: Number of trials; None is any.
    """
    best = _best_trained(race)
    if best is None or (max_trials is not None and max_trials < 1):
        return
    resolved = _resolve(best.recipe, race)
    space = _space_around(best.recipe, resolved)
    if space is None:
        return
    first = space.first_values(resolved)
    runner, before = race.runner, len(race.trials)
    deadline = race.time.search_deadline(best)
    key = hashlib.sha256(repr([space.base, space.dimensions]).encode()).hexdigest()[:8]
    with ExitStack() as stack:
        study = None
        if runner.state.is_main_process:
            (folder / f"tune-{key}").mkdir(exist_ok=True)
            maximize = greater_is_better(race.metric)
            study = Study(folder / f"tune-{key}", space, first, maximize=maximize, seed=best.recipe.seed)
            stack.enter_context(study)
        loop = TrialLoop(space, runner, race.metric, race.parts, None if deadline == inf else deadline, study)
        progress, finished = race.progress, race.finished
        loop.run(
            max_trials,
            progress and (lambda trial, number, *rest: progress(trial, before + number, *rest)),
            finished
            and (
                lambda trial, number, end, metric, best: finished(trial, before + number, end, metric, None)
            ),
        )
        trials = broadcast_from_main(runner.state, lambda: read_trials(study, space, runner, race.parts))
    for trial in trials:
        race.trials.append(Trial(trial.recipe, {**best.fields, **trial.fields}, trial.results, trial.failure))


def _best_trained(race: Race) -> Trial | None:
    """Return the best trial that takes optimizer steps; None if there is none."""
    judged = [trial for trial in race.trials if trial.results]
    sign = sign_of(race.metric)
    values = select(judged, race.metric, 0).values if judged else ()
    trained = [
        (sign * value, -index)
        for index, (trial, value) in enumerate(zip(judged, values, strict=True))
        if trains(trial)
    ]
    return judged[-max(trained)[1]] if trained else None


def _resolve(recipe: Recipe, race: Race) -> Recipe:
    """Return a recipe in which the defaults of the checkpoint are filled in."""
    fold_recipe, data = race.runner.loader.load(recipe, race.parts[0])
    trust_remote_code = race.runner.trust_remote_code
    return prepare_with_data(fold_recipe, data, trust_remote_code=trust_remote_code).recipe


def _space_around(recipe: Recipe, resolved: Recipe) -> SearchSpace | None:
    """Return recipes with other values in the last stage; None if its learning rate is not a single one."""
    spec, index = resolved.stages[-1], len(resolved.stages) - 1
    if not isinstance(spec.lr, float) or spec.epochs is None:
        return None
    dimensions = [f"stages.{index}.lr=log:{spec.lr / FACTOR:.3g}..{spec.lr * FACTOR:.3g}"]
    fewest, most = max(1, int(spec.epochs / 2)), int(spec.epochs * 2)
    dimensions.append(f"stages.{index}.epochs={fewest}..{most}")
    return read_space(recipe, dimensions)
