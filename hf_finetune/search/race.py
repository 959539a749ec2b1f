"""Race of contenders: all of them are judged on a fold, and the better half goes on to the next one."""

from collections.abc import Iterable, Sequence
from math import ceil, inf
from statistics import fmean
from time import perf_counter

from accelerate import PartialState

from hf_finetune.cache.cut_point import CacheUnavailableError
from hf_finetune.distributed import broadcast_from_main
from hf_finetune.errors import InputError
from hf_finetune.evaluation.metrics import sign_of
from hf_finetune.recipe.head_fit import solver_of
from hf_finetune.recipe.schema import Recipe
from hf_finetune.runs.estimates import estimate_seconds, time_inference
from hf_finetune.runs.prepare import prepare_with_data
from hf_finetune.runs.prepared import PreparedRun
from hf_finetune.runs.start import load_start
from hf_finetune.runs.trial import TrialResult, training_cost
from hf_finetune.search.contenders import Contender, with_epochs
from hf_finetune.search.frozen import judge_features
from hf_finetune.search.parts import FOLDS, Part
from hf_finetune.search.selection import select
from hf_finetune.search.trials import Trial, TrialRunner
from hf_finetune.search.tune import (
    DONE,
    FAILED,
    OUT_OF_TIME,
    STOPPED,
    DeadlineCallback,
    Finished,
    Progress,
    TimeUpError,
)

__all__ = ["Race"]

FINAL_SECONDS = 12.0
"""Time of the final run besides loading, training, fits and predictions: checkpoint and report (seconds)."""
TEST_PASSES = 2
"""Number of times that the final run predicts the test split, with its baselines."""
MAX_REPEAT_SHARE = 0.1
"""Largest fraction of the time left in which frozen features are judged on further divisions into folds."""
WHOLE = FOLDS / (FOLDS - 1)
"""Training examples of the final run per training example of a part."""
SLACK = 1.2
"""Factor on estimated times."""
UNDERESTIMATE = 1.5
"""Further factor on estimated times after one that was too short."""
MEASURED_SLACK = 1.2
"""Further factor on times that are estimated by a few measured steps."""
PLANNED_PARTS = 2
"""Number of parts that a contender is planned to be trained on, besides the final run."""
TOLERANCE = 0.05
"""Fraction of the time by which the final run may exceed it."""


class Race:
    """Race of contenders within a time that includes the final run of the winner.

    Args:
        runner: Trains the contenders on parts.
        parts: Parts, in the order in which they are used.
        metric: Metric by which contenders are compared.
        deadline: Time of ``perf_counter`` by which the final run must have ended; None is any.
        test_examples: Number of examples of the test split.
        loading: Time to load and check the data, which the final run does again (seconds).
        progress: Called before each part.
        finished: Called after each contender.
    """

    def __init__(
        self,
        runner: TrialRunner,
        parts: Sequence[Part],
        metric: str,
        deadline: float | None,
        test_examples: int,
        *,
        loading: float = 0.0,
        progress: Progress | None = None,
        finished: Finished | None = None,
    ):
        self.runner, self.parts, self.metric = runner, tuple(parts), metric
        self.deadline = inf if deadline is None else deadline
        self.test_examples, self.loading = test_examples, loading
        self.progress, self.finished = progress, finished
        self.trials: list[Trial] = []
        self.skipped: list[Contender] = []
        self.measured_pace = 0.0

    def run(self, contenders: Sequence[Contender]) -> None:
        """Judge contenders that train layers: all on the first part, and the better half on each further one.

        Args:
            contenders: The contenders; their trials are added to ``trials``.
        """
        active = [trial for contender in contenders for trial in self._begin(contender)]
        for part in self.parts[1:]:
            active = self._better_half(active)
            for trial in active:
                if self._fits(self._part_seconds(trial)):
                    self._run_part(trial, part)
        for trial in active:
            self._report(trial, self._end(trial))

    def judge_frozen(self, contenders: Sequence[Contender], deadline: float | None) -> None:
        """Judge frozen features on all parts if there is time.

        Args:
            contenders: The contenders; their trials are added to ``trials``. The first is judged in any case, each
                other one if it has the time that the slowest took.
            deadline: Time of ``perf_counter`` by which they should be judged; None is any.
        """
        slowest, latest = 0.0, inf if deadline is None else deadline
        for contender in contenders:
            if slowest and not (
                self._lasts(slowest + self._final_overhead()) and self._lasts_until(latest, slowest)
            ):
                self.skipped.append(contender)
                continue
            begun = perf_counter()
            self._judge_features(contender)
            slowest = max(slowest, perf_counter() - begun)

    def _judge_features(self, contender: Contender) -> None:
        """Judge a head on frozen features: if it is fitted, the features are computed once for all parts."""
        trial = Trial(contender.recipe, contender.fields)
        self.trials.append(trial)
        judged = broadcast_from_main(self.runner.state, lambda: self._frozen_results(contender.recipe))
        if isinstance(judged, str):
            trial.failure = judged
        elif judged is not None:
            trial.results.update(judged)
            self.runner.store(trial)
        else:
            for part in self.parts:
                if trial.results and not self._fits(self._part_seconds(trial)):
                    break
                if not self._run_part(trial, part):
                    break
        self._report(trial, self._end(trial))

    def _frozen_results(self, recipe: Recipe) -> dict[Part, TrialResult] | str | None:
        """Return the results of a fitted head, the reason why there are none, or None for a head that is trained."""
        runner = self.runner
        try:
            return judge_features(
                recipe,
                self.parts,
                runner.loader,
                has_time=self._has_time_for_fit,
                trust_remote_code=runner.trust_remote_code,
            )
        except (CacheUnavailableError, InputError) as error:
            return " ".join(str(error).split())

    def _begin(self, contender: Contender) -> list[Trial]:
        """Judge a contender that trains layers on the first part, with fewer epochs if there is no time for all."""
        if not self._lasts(self._final_overhead()):
            self.skipped.append(contender)
            return []
        expected = self._expected_seconds(contender.recipe)
        seconds, left = broadcast_from_main(self.runner.state, lambda: (expected, self._time_left()))
        planned = min(PLANNED_PARTS, len(self.parts))
        longest = (left / SLACK - self._final_overhead()) / (planned + WHOLE)
        if seconds > longest:
            shorter = with_epochs(contender, longest / seconds) if longest > 0 else None
            if shorter is None:
                self.skipped.append(contender)
                return []
            contender = shorter
        trial = Trial(contender.recipe, contender.fields)
        self.trials.append(trial)
        if self._run_part(trial, self.parts[0]):
            return [trial]
        if not trial.failure:  # it took longer than estimated
            self.measured_pace *= UNDERESTIMATE * max(1.0, longest / seconds)
        self._report(trial, self._end(trial))
        return []

    def _better_half(self, active: list[Trial]) -> list[Trial]:
        """Return the better half of the trials, the best first; the others are reported."""
        if not active:
            return []
        judged = [trial for trial in self.trials if trial.results]
        values = dict(zip(map(id, judged), self._ordered_values(judged), strict=True))
        ordered = sorted(active, key=lambda trial: -values[id(trial)])
        kept = ceil(len(ordered) / 2)
        for trial in ordered[kept:]:
            self._report(trial, STOPPED)
        return ordered[:kept]

    def _ordered_values(self, trials: Sequence[Trial]) -> Iterable[float]:
        """Return the score of each trial, greater for better trials."""
        return [sign_of(self.metric) * value for value in select(trials, self.metric, 0).values]

    def _run_part(self, trial: Trial, part: Part) -> bool:
        """Train a trial on a part, and return whether there is a result."""
        if self.progress is not None:
            self.progress(trial, self.trials.index(trial) + 1, part, len(self.parts))
        callbacks = [] if self.deadline == inf else [DeadlineCallback(self._latest_end(trial))]
        try:
            return self.runner.run(trial, part, callbacks)
        except TimeUpError:
            return False

    def _end(self, trial: Trial) -> str:
        """Return how a trial ended that was not stopped."""
        if trial.failure:
            return FAILED
        return DONE if len(trial.results) >= min(FOLDS, len(self.parts)) else OUT_OF_TIME

    def _report(self, trial: Trial, end: str) -> None:
        if self.finished is not None:
            self.finished(trial, self.trials.index(trial) + 1, end, self.metric)

    def _time_left(self) -> float:
        return self.deadline - perf_counter()

    def _latest_end(self, trial: Trial) -> float:
        """Return the time of ``perf_counter`` by which a part must end, so that the final run still fits."""
        latest = self.deadline - self._final_overhead()
        if trial.results:
            return latest - WHOLE * self._part_seconds(trial)
        now = perf_counter()
        return now + (latest - now) / (1 + WHOLE)

    def can_finish(self, max_seconds: float | None) -> list[bool]:
        """Return whether the final run of each trial with results fits into the time, the same on all processes.

        Args:
            max_seconds: Time of the search and the final run (seconds), which may be exceeded by 5 %; None is any.

        Returns:
            At least one is true: if there is no time for any, that with the shortest final run.
        """
        trials = [trial for trial in self.trials if trial.results]
        if max_seconds is None:
            return [True] * len(trials)
        seconds = [WHOLE * self._part_seconds(trial) + self._final_overhead() for trial in trials]
        latest = broadcast_from_main(
            self.runner.state, lambda: max(self._time_left() + TOLERANCE * max_seconds, min(seconds))
        )
        return [duration <= latest for duration in seconds]

    def _fits(self, part_seconds: float) -> bool:
        """Return whether there is time for a part and a final run of the same recipe, the same on all processes."""
        return self._lasts(part_seconds * (1 + WHOLE) + self._final_overhead())

    def _lasts(self, seconds: float) -> bool:
        """Return whether an estimated duration is left, the same on all processes."""
        return self._lasts_until(self.deadline, SLACK * seconds)

    def _lasts_until(self, deadline: float, seconds: float) -> bool:
        """Return whether a duration ends before a time of ``perf_counter``, the same on all processes."""
        return bool(broadcast_from_main(self.runner.state, lambda: perf_counter() + seconds <= deadline))

    def best_model(self) -> str:
        """Return the checkpoint with the best score so far; of none, the first."""
        judged = [trial for trial in self.trials if trial.results]
        if not judged:
            return self.trials[0].recipe.model.path
        values = self._ordered_values(judged)
        best = max(zip(values, judged, strict=True), key=lambda pair: pair[0])[1]
        return best.recipe.model.path

    def _has_time_for_fit(self, results: Sequence[TrialResult]) -> bool:
        """Return whether there is time for another fit to frozen features and the final run, on this process."""
        fit, left = fmean(result.seconds for result in results), self._time_left()
        if len(results) >= FOLDS and fit * (len(self.parts) - len(results)) > MAX_REPEAT_SHARE * left:
            return False
        return SLACK * (fit + self._overhead_of(results)) <= left

    def search_deadline(self, trial: Trial) -> float:
        """Return the time of ``perf_counter`` at which the final run of a trial must begin.

        Args:
            trial: Trial with a result.
        """
        return self.deadline - SLACK * (self._part_seconds(trial) * WHOLE + self._final_overhead())

    def _final_overhead(self) -> float:
        """Return the duration of the final run without its training: data, features, linear probe, report."""
        frozen = next((trial for trial in self.trials if trial.results), None)
        return self._overhead_of(list(frozen.results.values()) if frozen else [])

    def _overhead_of(self, frozen: Sequence[TrialResult]) -> float:
        """Return the same for the results of frozen features, if there are any."""
        if not frozen:
            return FINAL_SECONDS + self.loading
        predictions = TEST_PASSES * self.test_examples * frozen[0].milliseconds / 1000
        fits = 2 * WHOLE * fmean(result.seconds for result in frozen)
        return FINAL_SECONDS + self.loading + predictions + fits

    def _part_seconds(self, trial: Trial) -> float:
        return fmean(result.seconds for result in trial.results.values())

    def _expected_seconds(self, recipe: Recipe) -> float:
        """Return the estimated duration of a part: by the trials before, or else by a few measured steps."""
        if self.deadline == inf:
            return 0.0
        fold_recipe, data = self.runner.loader.load(recipe, self.parts[0])
        prepared = prepare_with_data(fold_recipe, data, trust_remote_code=self.runner.trust_remote_code)
        plans = prepared.plan.stages
        epochs = [
            0.0 if solver_of(spec) else plan.epochs or 1.0
            for spec, plan in zip(prepared.recipe.stages, plans, strict=True)
        ]
        cost = training_cost([(plan.layout.size, plan.trainable_size) for plan in plans], epochs)
        if pace := self._seconds_per_cost():
            return pace * cost
        seconds = _measure_seconds(prepared, epochs, self.runner.state)
        self.measured_pace = seconds / cost
        return seconds

    def _seconds_per_cost(self) -> float:
        """Return the duration of a part divided by its computation, of the slowest trial; 0 if none is known."""
        trained = [
            trial
            for trial in self.trials
            if trial.results and any(any(result.epochs) for result in trial.results.values())
        ]
        return max((self._part_seconds(trial) / trial.cost for trial in trained), default=self.measured_pace)


def _measure_seconds(prepared: PreparedRun, epochs: Sequence[float], state: PartialState) -> float:
    """Return the duration of training and evaluating a part, estimated by a few measured steps."""
    start = load_start(prepared, None, state)
    model, inputs, data = start.built.model, start.inputs, prepared.data
    training = sum(estimate_seconds(model, prepared.plan.stages, prepared.recipe, inputs))
    evaluated = sum(epochs) * len(data.validation or ()) + len(data.test or ())
    return MEASURED_SLACK * (training + evaluated * time_inference(model, inputs))
