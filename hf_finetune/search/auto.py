"""From data to a model without choices: checkpoint, strategy and number of epochs are chosen, and the winner is run."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

from hf_finetune.distributed import broadcast_from_main, start_processes
from hf_finetune.errors import InputError, Problem, format_seconds, suggestion
from hf_finetune.evaluation.metrics import default_metrics
from hf_finetune.files import read_json_object
from hf_finetune.models.library_logging import quiet_libraries
from hf_finetune.recipe.load import parse_recipe
from hf_finetune.recipe.schema import Recipe
from hf_finetune.report.run_record import SEARCH_FILE
from hf_finetune.runs.clock import RunClock
from hf_finetune.runs.folder import SEARCH_FOLDER, check_folder, make_folder
from hf_finetune.runs.run import RunResult, run
from hf_finetune.search.candidates import models_at_hand
from hf_finetune.search.choose import Progress as ChooseProgress
from hf_finetune.search.choose import check_solver, choose_checkpoint
from hf_finetune.search.contenders import features_recipe, frozen_contenders, trained_contenders
from hf_finetune.search.frozen import whole_pool
from hf_finetune.search.inspect_data import InspectedData, inspect_data
from hf_finetune.search.parts import Part, choose_parts, examples_outside_test
from hf_finetune.search.race import Race
from hf_finetune.search.race_time import RaceTime, trains
from hf_finetune.search.refine import refine
from hf_finetune.search.selection import select
from hf_finetune.search.stored_result import read_result, store_result
from hf_finetune.search.trial_table import as_json
from hf_finetune.search.trials import Trial, TrialRunner
from hf_finetune.search.tune import Finished, Progress, SearchResult, check_parts, find_deadline
from hf_finetune.training.manifest import write_json

__all__ = ["QUALITIES", "AutoResult", "auto", "final_recipe"]

QUALITIES = {"fast": 1, "good": 3, "best": 5}
"""Largest number of checkpoints whose frozen features are judged on folds, by quality; of more, the best are chosen."""
CHOICE_SHARE = 0.25
"""Fraction of the time in which checkpoints are ranked."""
FROZEN_SHARE = 0.5
"""Fraction of the time in which frozen features are judged, but for those of the first checkpoint."""
REQUEST_FILE = "request.json"
"""File in the folder of the search with what it was started with."""


@dataclass(frozen=True)
class AutoResult:
    """Result of an automatic search.

    Attributes:
        run: Run of the selected recipe.
        search: Trials and the selected one.
    """

    run: RunResult
    search: SearchResult


@dataclass(frozen=True)
class AutoProgress:
    """Functions that are called during an automatic search.

    Attributes:
        checkpoint: Called before each checkpoint that is ranked.
        part: Called before each part of a trial.
        finished: Called after each trial.
        selected: Called with the trials before the final run.
    """

    checkpoint: ChooseProgress | None = None
    part: Progress | None = None
    finished: Finished | None = None
    selected: Callable[[SearchResult], None] | None = None


@quiet_libraries()
def auto(
    path: str,
    folder: Path,
    *,
    max_seconds: float | None = None,
    max_trials: int | None = None,
    quality: str = "good",
    models: Sequence[str] = (),
    task: str | None = None,
    resume: bool = False,
    progress: AutoProgress = AutoProgress(),
    callbacks: Sequence[Any] = (),
    trust_remote_code: bool = False,
    started: float | None = None,
) -> AutoResult:
    """Choose a checkpoint and a strategy for data by trials on held-out examples, and run the selected recipe.

    The test split is read once, by the final run, after the score to expect has been written. Frozen features are
    always among the contenders.

    Args:
        path: Folder, table or Hub id with labeled examples.
        folder: Run directory, empty or new unless the search is resumed.
        max_seconds: Time of the search and the final run (seconds); None is any.
        max_trials: Number of contenders; None is any.
        quality: ``fast``, ``good`` or ``best``: how many checkpoints and strategies are tried.
        models: Checkpoints to choose from; empty takes the candidates on this machine.
        task: Task to train; None takes the first one that can use the data.
        resume: Whether to continue the search in ``folder``.
        progress: Functions that are called during the search.
        callbacks: Further callbacks for the Trainer of the final run.
        trust_remote_code: Whether code of checkpoints and metrics may run.
        started: Time of ``perf_counter`` from which the time counts; None is that of this call.

    Returns:
        The run and all trials.

    Raises:
        InputError: If the data cannot be used, nothing limits the search, or the folder cannot be used.
    """
    if quality not in QUALITIES:
        known = list(QUALITIES)
        problem = Problem(
            "--quality", f"must be {', '.join(known)}", repr(quality), suggestion(quality, known)
        )
        raise InputError(problem)
    if max_trials is None and max_seconds is None:
        raise InputError(Problem("auto", "must have a limit", repair="Set --time or --trials."))
    loading = perf_counter()
    inspected = inspect_data(path, tasks=[task] if task else None)
    loading = perf_counter() - loading
    check_solver("auto", inspected.data.target)
    if not inspected.task.has_label_head:
        rule = f"does not support {inspected.task.name}, whose models have no head of the labels"
        raise InputError(Problem("auto", rule, repair="Use tune, with a recipe."))
    request = {"data": path, "quality": quality, "models": list(models), "trials": max_trials}
    request |= {"task": task} if task else {}
    runner = TrialRunner(folder / SEARCH_FOLDER, start_processes(), trust_remote_code=trust_remote_code)
    parts = choose_parts(examples_outside_test(inspected.data))
    check_parts(runner, features_recipe(inspected, _models(inspected, models)[0]), parts)
    broadcast_from_main(runner.state, lambda: _open_folder(folder, request, resume))
    result = read_result(runner.folder, runner, parts) if resume else None
    if result is None:
        clock = RunClock(runner.folder, started)
        runner.callbacks = (clock,)
        deadline = find_deadline(clock, max_seconds, runner.state)
        limits = _Limits(max_seconds, deadline, max_trials, loading)
        result = _search(inspected, runner, parts, limits, quality, models, progress)
        clock.save()
        runner.remove_shared()
        if runner.state.is_main_process:
            write_json(folder / SEARCH_FILE, as_json(result))
            store_result(result, runner.folder)
    if progress.selected is not None:
        progress.selected(result)
    recipe = final_recipe(result.winner, result.seeds)
    resumes = resume and (folder / "manifest.json").is_file()
    finished = run(recipe, folder, resume=resumes, callbacks=callbacks, trust_remote_code=trust_remote_code)
    return AutoResult(finished, result)


@dataclass(frozen=True)
class _Limits:
    """Limits of a search.

    Attributes:
        max_seconds: Time of the search and the final run (seconds); None is any.
        deadline: Time of ``perf_counter`` by which the final run must have ended; None is any.
        max_trials: Number of contenders; None is any.
        loading: Time to load and check the data, which the final run does again (seconds).
    """

    max_seconds: float | None
    deadline: float | None
    max_trials: int | None
    loading: float

    def deadline_of(self, share: float) -> float | None:
        """Return the time of ``perf_counter`` at which a fraction of the time is over; None is any."""
        if self.deadline is None or self.max_seconds is None:
            return None
        return self.deadline - (1 - share) * self.max_seconds


def _search(
    inspected: InspectedData,
    runner: TrialRunner,
    parts: Sequence[Part],
    limits: _Limits,
    quality: str,
    models: Sequence[str],
    progress: AutoProgress,
) -> SearchResult:
    """Judge the checkpoints and then the strategies of the best one, tune the best of these, and select a trial.

    If there is no time for any strategy of the best checkpoint, those of faster ones are judged.
    """
    candidates, count = _models(inspected, models), QUALITIES[quality]
    if len(candidates) > count:
        deadline = limits.deadline_of(CHOICE_SHARE)
        candidates = _rank(inspected, runner, candidates, deadline, progress.checkpoint)[:count]
    frozen = frozen_contenders(inspected, candidates)[: limits.max_trials]
    metric = (*frozen[0].recipe.metrics, *default_metrics(inspected.data.target))[0]
    test_examples = len(inspected.data.test or ())
    time = RaceTime(runner, parts, limits.deadline, test_examples, limits.loading)
    race = Race(time, metric, progress=progress.part, finished=progress.finished)
    race.judge_frozen(frozen, limits.deadline_of(FROZEN_SHARE))
    left = None if limits.max_trials is None else limits.max_trials - len(frozen)
    for model in race.models():
        trained = trained_contenders(inspected, model, quality)
        if race.run(trained[:left]):
            break
    if quality != "fast":
        refine(race, runner.folder, None if left is None else left - len(trained))
    return _result(race, metric, test_examples, limits.max_seconds)


def final_recipe(trial: Trial, seeds: int = 1) -> Recipe:
    """Return the recipe with which the selected trial is trained on all examples outside the test split.

    Each stage trains the median number of epochs after which it was best on the parts; nothing is selected by the
    validation split any more, whose examples are training examples.

    Args:
        trial: Selected trial.
        seeds: Number of trainings of the last stage, whose weights are averaged.
    """
    content = trial.recipe.model_dump(mode="json", by_alias=True, exclude_unset=True)
    content["data"] = {
        **content["data"],
        "split": {**content["data"].get("split", {}), "merge_validation": True},
    }
    kept = zip(*(result.kept_epochs for result in trial.results.values()), strict=True)
    if content.get("stages"):
        content["stages"] = [
            _final_stage(stage, median(epochs)) for stage, epochs in zip(content["stages"], kept, strict=True)
        ]
        if seeds > 1:
            content["stages"][-1]["seeds"] = seeds
    return parse_recipe(content)


def _final_stage(stage: dict[str, Any], epochs: float) -> dict[str, Any]:
    fixed = {name: value for name, value in stage.items() if name not in ("early_stopping", "best")}
    return {**fixed, "epochs": max(1, round(epochs))} if epochs else fixed


def _models(inspected: InspectedData, models: Sequence[str]) -> list[str]:
    """Return the checkpoints to choose from: the given ones, or the candidates on this machine."""
    return list(models) or models_at_hand(inspected.task.modality)


def _rank(
    inspected: InspectedData,
    runner: TrialRunner,
    candidates: Sequence[str],
    deadline: float | None,
    progress: ChooseProgress | None,
) -> list[str]:
    """Return checkpoints, the best first, by a linear classifier on their frozen features."""

    def recipe_for(model: str) -> Recipe:
        return features_recipe(inspected, model)

    ranking = choose_checkpoint(
        candidates,
        recipe_for,
        whole_pool(recipe_for(candidates[0]), runner.loader),
        deadline=deadline,
        progress=progress,
        trust_remote_code=runner.trust_remote_code,
    )
    return [entry.model for entry in ranking.ranked]


def _result(race: Race, metric: str, test_examples: int, max_seconds: float | None) -> SearchResult:
    """Select the winner of a race.

    Raises:
        InputError: If no contender has a result.
    """
    judged = tuple(trial for trial in race.trials if trial.results)
    failed = tuple(trial for trial in race.trials if not trial.results)
    if not judged:
        reasons = dict.fromkeys(trial.failure for trial in failed if trial.failure)
        if reasons:
            raise InputError([Problem("Every contender", f"failed: {reason}") for reason in reasons])
        rule = "must be long enough for a trial"
        raise InputError(Problem("--time", rule, format_seconds(max_seconds or 0.0)))
    eligible = race.time.can_finish(max_seconds)
    selection = select(judged, metric, test_examples, eligible=eligible)
    winner = judged[selection.winner]
    return SearchResult(
        judged,
        failed,
        metric,
        race.parts,
        selection,
        untried=tuple(contender.fields for contender in race.skipped),
        too_long=tuple(index for index, fits in enumerate(eligible) if not fits),
        seeds=race.time.possible_seeds(winner) if trains(winner) else 1,
    )


def _open_folder(folder: Path, request: dict[str, Any], resume: bool) -> None:
    """Create the run directory, or check that the search in it is the same.

    Raises:
        InputError: If the folder cannot be used, or contains another search.
    """
    file = folder / SEARCH_FOLDER / REQUEST_FILE
    if not resume:
        check_folder(folder)
        if file.exists():
            repair = "Choose another folder, or add --resume to continue the search in it."
            raise InputError(Problem("--output-dir", "must be empty or not exist", str(folder), repair))
        make_folder(file.parent)
        write_json(file, request)
        return
    stored = read_json_object(file)
    if not stored:
        rule, repair = "must contain an automatic search", "Start it without --resume."
        raise InputError(Problem("--output-dir", rule, str(folder), repair))
    if stored != json.loads(json.dumps(request)):
        repair = "Continue it with the same data, quality and checkpoints, or choose another folder."
        raise InputError(Problem("--output-dir", "must contain the same search", str(folder), repair))
