"""Study of a search: optuna suggests values and stops trials, and its journal is in the folder of the search."""

import os
import platform
from collections.abc import Mapping
from math import ceil, log
from pathlib import Path
from typing import Any
from uuid import uuid4

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from hf_finetune.search.space import SearchSpace
from hf_finetune.training.run_lock import RunLock, is_free

__all__ = ["JOURNAL", "Study", "Suggestion"]

JOURNAL = "study.log"
"""Journal of optuna in the folder of a search."""
RANDOM_TRIALS = 8
"""Number of trials with random values, before the sampler learns from the results."""
REDUCTION = 3
"""Factor of successive halving: of the trials that reach a number of parts, about one in so many goes on."""
_STARTED = (TrialState.RUNNING, TrialState.COMPLETE, TrialState.PRUNED)
_WORKER = "worker"
_NAME = "tune"


class Suggestion:
    """Values that the study suggests for one trial."""

    def __init__(self, study: optuna.Study, trial: optuna.Trial):
        self._study, self._trial = study, trial
        self._reported = set(study.get_trials(deepcopy=False)[trial.number].intermediate_values)
        self.number: int = trial.number
        self.values: dict[str, Any] = dict(trial.params)

    def report(self, value: float, step: int) -> bool:
        """Report the score after a step, and return whether the trial should stop.

        Args:
            value: Score so far.
            step: Number of parts, or of evaluations, that are done, from 1.

        Returns:
            Whether the trial should stop.
        """
        if step not in self._reported:  # by a process that was killed
            self._trial.report(value, step)
        return bool(self._trial.should_prune())

    def finish(self, value: float | None, *, complete: bool) -> None:
        """Record the end of the trial.

        Args:
            value: Score of the trial; None if it failed.
            complete: Whether it was not stopped early.
        """
        if complete and value is not None:
            self._study.tell(self._trial, value, TrialState.COMPLETE)
        else:
            self._study.tell(self._trial, None, TrialState.PRUNED)


class Study:
    """Study of optuna whose suggestions depend only on the seed and on the trials before.

    Several processes can work on one study. A trial of a process that no longer runs is continued.

    Args:
        folder: Folder of the search.
        space: Search space.
        first: Values of the first trial, as the distributions draw them; the others are drawn.
        maximize: Whether greater scores are better.
        seed: Seed of the suggestions.
    """

    def __init__(
        self, folder: Path, space: SearchSpace, first: Mapping[str, Any], *, maximize: bool, seed: int
    ):
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.space, self.distributions, self.seed = space, space.distributions(), seed
        self._study = optuna.create_study(
            storage=JournalStorage(JournalFileBackend(str(folder / JOURNAL))),
            study_name=_NAME,
            direction="maximize" if maximize else "minimize",
            pruner=_Halving(),
            load_if_exists=True,
        )
        if not self._study.get_trials(deepcopy=False):
            self._study.enqueue_trial(dict(first), skip_if_exists=True)
        self._worker = folder / "workers" / _worker_name()
        self._lock = RunLock(self._worker)

    def __enter__(self) -> "Study":
        self._worker.mkdir(parents=True, exist_ok=True)
        self._lock.acquire()
        return self

    def __exit__(self, *error: object) -> None:
        self._lock.release()
        for folder in (self._worker, self._worker.parent):
            try:
                folder.rmdir()
            except OSError:
                return

    def tried_values(self) -> dict[int, dict[str, Any]]:
        """Return the values of all trials by their number from 1, in the order of their first suggestion."""
        trials = self._study.get_trials(deepcopy=False, states=_STARTED)
        return {
            trial.number + 1: self.space.decode(trial.params)
            for trial in trials
            if set(trial.params) == set(self.distributions)
        }

    def best(self) -> tuple[float, int] | None:
        """Return the score and the number from 1 of the best complete trial of all processes; None without one."""
        if not self._study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
            return None
        return self._study.best_value, self._study.best_trial.number + 1

    def running_elsewhere(self) -> tuple[int, ...]:
        """Return the numbers from 1 of the trials that other processes still train."""
        running = self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        return tuple(
            trial.number + 1
            for trial in running
            if trial.user_attrs.get(_WORKER) != self._worker.name and not self._is_abandoned(trial)
        )

    def ask(self, max_trials: int | None = None) -> Suggestion | None:
        """Return the next trial: one that another process left unfinished, or a new one.

        Args:
            max_trials: Number of trials from which no new one is suggested; None is any.
        """
        for trial in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if not self._is_abandoned(trial):
                continue
            continued = optuna.Trial(self._study, trial._trial_id)
            if set(trial.params) == set(self.distributions):
                return self._suggest(continued)
            self._study.tell(continued, state=TrialState.FAIL)  # its values were not stored completely
        started = len(self._study.get_trials(deepcopy=False, states=_STARTED))
        if max_trials is not None and started >= max_trials:
            return None
        self._study.sampler = optuna.samplers.TPESampler(
            seed=self.seed + started,
            n_startup_trials=RANDOM_TRIALS,
            multivariate=True,
            constant_liar=True,
        )
        return self._suggest(self._study.ask(self.distributions))

    def _suggest(self, trial: optuna.Trial) -> Suggestion:
        trial.set_user_attr(_WORKER, self._worker.name)
        return Suggestion(self._study, trial)

    def _is_abandoned(self, trial: optuna.trial.FrozenTrial) -> bool:
        """Return whether the process that worked on a trial has ended."""
        worker = trial.user_attrs.get(_WORKER)
        return worker is None or is_free(self._worker.parent / worker)


class _Halving(optuna.pruners.BasePruner):
    """Asynchronous successive halving: after 1, 3, 9, ... steps, about the best third of the trials goes on.

    A trial is compared with those before it only, so that a study that is resumed stops the same trials.

    Source: Li et al. 2020, A System for Massively Parallel Hyperparameter Tuning.
    """

    def prune(self, study: optuna.Study, trial: optuna.trial.FrozenTrial) -> bool:
        step = trial.last_step
        if step is None or not (log(step) / log(REDUCTION)).is_integer():
            return False
        sign = 1 if study.direction == optuna.study.StudyDirection.MAXIMIZE else -1
        earlier = [
            sign * other.intermediate_values[step]
            for other in study.get_trials(deepcopy=False)
            if other.number < trial.number and step in other.intermediate_values
        ]
        if len(earlier) < REDUCTION:
            return False
        better = sum(value > sign * trial.intermediate_values[step] for value in earlier)
        return better >= ceil((len(earlier) + 1) / REDUCTION)


def _worker_name() -> str:
    return f"{platform.node()}-{os.getpid()}-{uuid4().hex[:8]}"
