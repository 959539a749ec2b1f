"""Search for the best values of recipe fields: trials on held-out parts, suggested and stopped by a study."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

from accelerate import PartialState
from transformers import TrainerCallback

from hf_finetune.data.recipe_data import load_data
from hf_finetune.distributed import broadcast_from_main, start_processes
from hf_finetune.errors import InputError, Problem, format_seconds, join_words
from hf_finetune.evaluation.metrics import default_metrics, greater_is_better
from hf_finetune.files import read_json_object
from hf_finetune.models.library_logging import quiet_libraries
from hf_finetune.recipe.schema import Recipe
from hf_finetune.runs.clock import RunClock
from hf_finetune.runs.folder import check_folder, make_folder
from hf_finetune.runs.prepare import prepare_with_data
from hf_finetune.search.callbacks import DeadlineCallback, EpochCallback, StoppedError, TimeUpError
from hf_finetune.search.parts import FOLDS, Part, choose_parts, examples_outside_test
from hf_finetune.search.selection import Selection, select
from hf_finetune.search.space import SearchSpace
from hf_finetune.search.study import Study, Suggestion
from hf_finetune.search.trials import Trial, TrialRunner
from hf_finetune.training.manifest import write_json

__all__ = [
    "Finished",
    "Progress",
    "SearchResult",
    "TrialLoop",
    "check_parts",
    "find_deadline",
    "read_trials",
    "tune",
]

SEARCH_FILE = "search.json"
"""File in the folder of a search with what it searches, which must not change when it is resumed."""

DONE, STOPPED, FAILED, OUT_OF_TIME = "done", "stopped", "failed", "out of time"
"""Ends of a trial. One that is out of time is continued when the search is resumed."""

Progress = Callable[[Trial, int, Part, int], None]
"""Function that is called before each part with the trial, its number from 1, the part, and the number of parts."""
Finished = Callable[[Trial, int, str, str, tuple[float, int] | None], None]
"""Function that is called after each trial with its number from 1, its end, the metric of the search, and score and
number of the best complete trial of a study, those of other processes included; None without a study."""


@dataclass(frozen=True)
class SearchResult:
    """Result of a search.

    Attributes:
        trials: Trials with at least one part, in their order.
        failed: Trials that could not be trained.
        metric: Metric by which they are compared.
        parts: Parts on which they were judged.
        selection: Selected trial and its expected score.
        untried: Fields of contenders for which there was no time.
        too_long: Indexes of trials that could not be selected, because there was no time for their final run.
        seeds: Number of trainings of the last stage of the final run, whose weights are averaged.
        running: Numbers of the trials that other processes still train; they are not among the others, and the last
            process makes the final selection.
    """

    trials: tuple[Trial, ...]
    failed: tuple[Trial, ...]
    metric: str
    parts: tuple[Part, ...]
    selection: Selection
    untried: tuple[Mapping[str, Any], ...] = ()
    too_long: tuple[int, ...] = ()
    seeds: int = 1
    running: tuple[int, ...] = ()

    @property
    def winner(self) -> Trial:
        """Selected trial."""
        return self.trials[self.selection.winner]


@quiet_libraries()
def tune(
    space: SearchSpace,
    folder: Path,
    *,
    max_trials: int | None = None,
    max_seconds: float | None = None,
    resume: bool = False,
    progress: Progress | None = None,
    finished: Finished | None = None,
    trust_remote_code: bool = False,
    started: float | None = None,
) -> SearchResult:
    """Try recipes of a search space on held-out parts of the examples, and select one.

    The test split is not read. Under ``accelerate launch`` every process calls this, and each trial is trained on all
    of them. Several launches can work on one folder, all but the first with ``resume``.

    Args:
        space: Recipes to try.
        folder: Folder of the search, empty or new unless it is resumed.
        max_trials: Number of trials; None is any.
        max_seconds: Time in which trials are trained (seconds); None is any.
        resume: Whether to continue the search in ``folder``.
        progress: Called before each part.
        finished: Called after each trial.
        trust_remote_code: Whether code of checkpoints and metrics may run.
        started: Time of ``perf_counter`` from which the time counts; None is that of this call.

    Returns:
        All trials and the selected one.

    Raises:
        InputError: If neither number nor time of trials is limited, the folder cannot be used, the data cannot be used,
            or no trial could be trained.
    """
    if max_trials is None and max_seconds is None:
        raise InputError(Problem("A search", "must have a limit", repair="Set --trials or --time."))
    state = start_processes()
    base = space.recipe({})
    data = load_data(base)
    metric = base.metrics[0] if base.metrics else default_metrics(data.target)[0]
    parts = choose_parts(examples_outside_test(data))
    runner = TrialRunner(folder, state, trust_remote_code=trust_remote_code)
    check_parts(runner, base, parts)
    fold_recipe, fold = runner.loader.load(base, parts[0])
    prepared = prepare_with_data(fold_recipe, fold, trust_remote_code=trust_remote_code)
    first = space.first_values(prepared.recipe)
    broadcast_from_main(state, lambda: _open_folder(folder, space, metric, parts, resume))
    clock = RunClock(folder, started)
    runner.callbacks = (clock,)
    deadline = find_deadline(clock, max_seconds, state)
    with ExitStack() as stack:
        study = None
        if state.is_main_process:
            maximize = greater_is_better(metric)
            study = stack.enter_context(Study(folder, space, first, maximize=maximize, seed=base.seed))
        TrialLoop(space, runner, metric, parts, deadline, study).run(max_trials, progress, finished)
        running = broadcast_from_main(state, lambda: study.running_elsewhere() if study is not None else ())
        trials = broadcast_from_main(state, lambda: read_trials(study, space, runner, parts))
    clock.save()
    ended = [trial for trial in trials if trial.number not in running]
    tried = tuple(trial for trial in ended if trial.results)
    failed = tuple(trial for trial in ended if not trial.results)
    if not tried:
        raise InputError(_no_trial(failed, running, max_seconds))
    if not running:
        runner.remove_shared()
    test_examples = len(data.test) if data.test is not None else 0
    selection = select(tried, metric, test_examples, base.seed)
    return SearchResult(tried, failed, metric, parts, selection, running=running)


def find_deadline(clock: RunClock, max_seconds: float | None, state: PartialState) -> float | None:
    """Return the time of ``perf_counter`` at which a search ends, about the same on all processes; None is any.

    Args:
        clock: Clock of the search, with the time of earlier attempts.
        max_seconds: Time of all attempts (seconds); None is any.
        state: State of the process.
    """
    if max_seconds is None:
        return None
    left: float = broadcast_from_main(state, lambda: max_seconds - clock.spent())
    return perf_counter() + left


def check_parts(runner: TrialRunner, recipe: Recipe, parts: Sequence[Part]) -> None:
    """Check that the data can be divided into parts.

    Args:
        runner: Loads the data.
        recipe: Recipe of the search.
        parts: The parts.

    Raises:
        InputError: If it cannot.
    """
    try:
        runner.loader.load(recipe, parts[0])
    except InputError as error:
        if any(problem.place == "evaluation.folds" for problem in error.problems):
            rule = f"must have at least {FOLDS} distinct examples (or groups) of a class for a search"
            raise InputError(Problem("The data", rule)) from error
        raise


def read_trials(
    study: Study | None, space: SearchSpace, runner: TrialRunner, parts: Sequence[Part]
) -> list[Trial]:
    """Return all trials of a study with their results, those of other launches included.

    Args:
        study: The study; None on all processes but the main one.
        space: Recipes that it tried.
        runner: Knows where the results are.
        parts: Parts that may be done.

    Returns:
        The trials in the order in which they were suggested; empty without a study.
    """
    trials = []
    for number, values in (study.tried_values() if study is not None else {}).items():
        trial = Trial(space.recipe(values), values, number=number)
        runner.read(trial, parts)
        trials.append(trial)
    return trials


def _no_trial(failed: Sequence[Trial], running: Sequence[int], max_seconds: float | None) -> list[Problem]:
    if running:
        numbers = join_words([f"trial {number}" for number in running])
        repair = "The last process writes the result."
        return [
            Problem(
                "The search", "must have a trial that has ended", f"only {numbers} in other processes", repair
            )
        ]
    if failed:
        reasons = dict.fromkeys(trial.failure.removesuffix(".") for trial in failed)
        return [Problem("Every trial", f"failed: {reason}") for reason in reasons]
    rule = "must be long enough for a trial"
    return [Problem("--time", rule, format_seconds(max_seconds or 0.0))]


def _open_folder(folder: Path, space: SearchSpace, metric: str, parts: Sequence[Part], resume: bool) -> None:
    """Create the folder of a search, or check that the search in it is the same.

    Raises:
        InputError: If the folder cannot be used, or contains another search.
    """
    dimensions = [[dimension.field, repr(dimension.values)] for dimension in space.dimensions]
    text = json.dumps([dict(space.base), dimensions], sort_keys=True)
    content = {
        "space": hashlib.sha256(text.encode()).hexdigest(),
        "metric": metric,
        "parts": [part.name for part in parts],
    }
    if not resume:
        check_folder(folder)
        make_folder(folder)
        write_json(folder / SEARCH_FILE, content)
        return
    stored = read_json_object(folder / SEARCH_FILE)
    if not stored:
        rule, repair = "must contain a search", "Start it without --resume."
        raise InputError(Problem("--output-dir", rule, str(folder), repair))
    if stored != content:
        repair = "Continue it with the same recipe, data and fields, or choose another folder."
        raise InputError(Problem("--output-dir", "must contain the same search", str(folder), repair))


class TrialLoop:
    """Loop that trains the trials that a study suggests.

    Args:
        space: Recipes to try.
        runner: Trains the trials.
        metric: Metric by which trials are compared.
        parts: Parts, in the order in which they are used.
        deadline: Time of ``perf_counter`` at which it ends; None is any.
        study: The study; None on all processes but the main one.
    """

    def __init__(
        self,
        space: SearchSpace,
        runner: TrialRunner,
        metric: str,
        parts: Sequence[Part],
        deadline: float | None,
        study: Study | None,
    ):
        self.space, self.runner, self.metric, self.parts = space, runner, metric, tuple(parts)
        self.deadline, self.study = deadline, study
        self.suggestion: Suggestion | None = None
        self.part_seconds: list[float] = []

    def run(self, max_trials: int | None, progress: Progress | None, finished: Finished | None) -> None:
        """Train trials until their number or the time is reached.

        Args:
            max_trials: Number of trials; None is any.
            progress: Called before each part.
            finished: Called after each trial.
        """
        while True:
            suggested = broadcast_from_main(self.runner.state, lambda: self._ask(max_trials))
            if suggested is None:
                return
            number, values = suggested
            trial = Trial(self.space.recipe(values), values)
            end = self._train(trial, number, progress)
            if self.suggestion is not None and end != OUT_OF_TIME:
                value = trial.value(self.metric) if trial.results else None
                self.suggestion.finish(value, complete=end == DONE)
            if finished is not None:
                finished(
                    trial, number, end, self.metric, self.study.best() if self.study is not None else None
                )
            if end == OUT_OF_TIME:
                return

    def _ask(self, max_trials: int | None) -> tuple[int, dict[str, Any]] | None:
        assert self.study is not None
        if not self._has_time():
            return None
        self.suggestion = self.study.ask(max_trials)
        if self.suggestion is None:
            return None
        return self.suggestion.number + 1, self.space.decode(self.suggestion.values)

    def _train(self, trial: Trial, number: int, progress: Progress | None) -> str:
        """Train a trial on one part after the other, and return how it ended."""
        for step, part in enumerate(self.parts, 1):
            if step > 1 and not broadcast_from_main(self.runner.state, self._has_time):
                return OUT_OF_TIME
            if progress is not None:
                progress(trial, number, part, len(self.parts))
            try:
                if not self.runner.run(trial, part, self._callbacks()):
                    return FAILED
            except TimeUpError:
                return OUT_OF_TIME
            except StoppedError:
                return STOPPED
            self.part_seconds.append(trial.results[part].seconds)
            if step < len(self.parts) and self._should_stop(trial.value(self.metric), step):
                return STOPPED
        return DONE

    def _has_time(self) -> bool:
        """Return whether a part of typical duration ends before the deadline."""
        expected = median(self.part_seconds) if self.part_seconds else 0.0
        return self.deadline is None or perf_counter() + expected < self.deadline

    def _callbacks(self) -> list[TrainerCallback]:
        callbacks: list[TrainerCallback] = []
        if self.deadline is not None:
            callbacks.append(DeadlineCallback(self.deadline))
        if len(self.parts) == 1:  # there is no other part after which the trial can be stopped
            callbacks.append(EpochCallback(self.metric, self._should_stop))
        return callbacks

    def _should_stop(self, value: float, step: int) -> bool:
        """Report a score to the study, and return whether the trial should stop."""
        suggestion = self.suggestion
        return bool(
            broadcast_from_main(
                self.runner.state, lambda: suggestion is not None and suggestion.report(value, step)
            )
        )
