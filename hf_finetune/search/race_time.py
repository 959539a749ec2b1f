"""Time of a race of contenders: what is left besides the final run of the winner, and how long contenders take."""

from collections.abc import Sequence
from math import inf
from statistics import fmean
from time import perf_counter

from accelerate import PartialState

from hf_finetune.distributed import broadcast_from_main, is_sharded
from hf_finetune.recipe.head_fit import solver_of
from hf_finetune.recipe.schema import Recipe
from hf_finetune.runs.estimates import estimate_seconds, time_inference
from hf_finetune.runs.prepare import prepare_with_data
from hf_finetune.runs.prepared import PreparedRun
from hf_finetune.runs.start import load_start
from hf_finetune.runs.trial import TrialResult, training_cost
from hf_finetune.search.parts import FOLDS, Part
from hf_finetune.search.trials import Trial, TrialRunner

__all__ = ["FINAL_SECONDS", "RaceTime", "trains"]

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
MEASURED_SLACK = 1.2
"""Further factor on times that are estimated by a few measured steps."""
UNDERESTIMATE = 1.5
"""Further factor on estimated times after one that was too short."""
PLANNED_PARTS = 2
"""Number of parts that a contender is planned to be trained on, besides the final run."""
MAX_SEEDS = 5
"""Largest number of trainings of the last stage of the final run, whose weights are averaged."""
TOLERANCE = 0.05
"""Fraction of the time by which the final run may exceed it."""


class RaceTime:
    """Time of a race, which includes the final run of the winner.

    All processes get the same answers, except where a method says otherwise.

    Args:
        runner: Trains the contenders on parts.
        parts: Parts of the race.
        deadline: Time of ``perf_counter`` by which the final run must have ended; None is any.
        test_examples: Number of examples of the test split.
        loading: Time to load and check the data, which the final run does again (seconds).

    Attributes:
        trials: Trials so far, by whose results durations are estimated.
    """

    def __init__(
        self,
        runner: TrialRunner,
        parts: Sequence[Part],
        deadline: float | None,
        test_examples: int,
        loading: float = 0.0,
    ):
        self.runner, self.parts = runner, tuple(parts)
        self.deadline = inf if deadline is None else deadline
        self.test_examples, self.loading = test_examples, loading
        self.trials: list[Trial] = []
        self.measured_paces: dict[str, float] = {}
        self.underestimates: dict[str, float] = {}

    @property
    def is_limited(self) -> bool:
        """Whether there is a deadline."""
        return self.deadline < inf

    def lasts(self, seconds: float = 0.0, until: float = inf) -> bool:
        """Return whether there is time for a computation and the final run of frozen features.

        Args:
            seconds: Estimated duration of the computation.
            until: Time of ``perf_counter`` by which the computation must have ended as well.
        """
        needed = SLACK * (seconds + self._final_overhead())
        agreed: bool = broadcast_from_main(
            self.runner.state, lambda: needed <= self._left() and perf_counter() + seconds <= until
        )
        return agreed

    def lasts_for_part(self, trial: Trial) -> bool:
        """Return whether there is time for a further part of a trial and its final run."""
        return self.lasts(_part_seconds(trial) * (1 + WHOLE))

    def lasts_for_features(self, examples: int, milliseconds: float, until: float) -> bool:
        """Return whether there is time for the features of a checkpoint and its final run, on this process.

        Args:
            examples: Number of examples whose features are computed.
            milliseconds: Time of each (milliseconds).
            until: Time of ``perf_counter`` by which they must have been judged as well.
        """
        judged = [trial for trial in self.trials if trial.results]
        seconds = examples * milliseconds / 1000 + max((trial.seconds for trial in judged), default=0.0)
        fit = max(map(_part_seconds, judged), default=0.0)
        needed = SLACK * (seconds + self._overhead(milliseconds, fit))
        return needed <= self._left() and perf_counter() + seconds <= until

    def lasts_for_fit(self, results: Sequence[TrialResult]) -> bool:
        """Return whether there is time for another fit to frozen features and the final run, on this process.

        Args:
            results: Results of the fits before.
        """
        fit = fmean(result.seconds for result in results)
        if len(results) >= FOLDS and fit * (len(self.parts) - len(results)) > MAX_REPEAT_SHARE * self._left():
            return False
        return SLACK * (fit + self._overhead_of(results)) <= self._left()

    def longest_part(self) -> float:
        """Return the largest duration of a part of a new contender (seconds); it can be negative."""
        planned = min(PLANNED_PARTS, len(self.parts))
        left: float = broadcast_from_main(self.runner.state, self._left)
        return (left / SLACK - self._final_overhead()) / (planned + WHOLE)

    def latest_end(self, trial: Trial) -> float:
        """Return the time of ``perf_counter`` by which a part must end so that the final run fits, on this process.

        Args:
            trial: Trial that the part belongs to.
        """
        latest = self.deadline - self._final_overhead()
        if trial.results:
            return latest - WHOLE * _part_seconds(trial)
        now = perf_counter()
        return now + (latest - now) / (1 + WHOLE)

    def search_deadline(self, trial: Trial) -> float:
        """Return the time of ``perf_counter`` at which the final run of a trial must begin, on this process.

        Args:
            trial: Trial with a result.
        """
        return self.deadline - SLACK * (_part_seconds(trial) * WHOLE + self._final_overhead())

    def can_finish(self, max_seconds: float | None) -> list[bool]:
        """Return whether the final run of each trial with results fits into the time.

        Args:
            max_seconds: Time of the search and the final run (seconds), which may be exceeded by 5 %; None is any.

        Returns:
            At least one is true: if there is no time for any, that with the shortest final run.
        """
        trials = [trial for trial in self.trials if trial.results]
        if max_seconds is None:
            return [True] * len(trials)
        seconds = [
            WHOLE * _part_seconds(trial) + self._final_overhead(trial.recipe.model.path) for trial in trials
        ]
        latest = broadcast_from_main(
            self.runner.state, lambda: max(self._left() + TOLERANCE * max_seconds, min(seconds))
        )
        return [duration <= latest for duration in seconds]

    def possible_seeds(self, trial: Trial) -> int:
        """Return how often the final run of a trial can train its last stage in the time left, 1 to ``MAX_SEEDS``.

        Args:
            trial: Trial that trains layers.

        Returns:
            The number; 1 without a deadline, so that the result does not depend on measured times, and if the model is
            sharded, which averaging does not support.
        """
        if not self.is_limited or is_sharded():
            return 1
        once = SLACK * WHOLE * _part_seconds(trial)
        overhead = SLACK * self._final_overhead(trial.recipe.model.path)
        left: float = broadcast_from_main(self.runner.state, self._left)
        return min(MAX_SEEDS, max(1, int((left - overhead) / once)))

    def expected_seconds(self, recipe: Recipe) -> float:
        """Return the estimated duration of a part: by the trials before, or else by a few measured steps.

        Args:
            recipe: Recipe of a contender that trains layers.
        """
        if not self.is_limited:
            return 0.0
        fold_recipe, data = self.runner.loader.load(recipe, self.parts[0])
        prepared = prepare_with_data(fold_recipe, data, trust_remote_code=self.runner.trust_remote_code)
        plans = prepared.plan.stages
        epochs = [
            0.0 if solver_of(spec) else plan.epochs or 1.0
            for spec, plan in zip(prepared.recipe.stages, plans, strict=True)
        ]
        cost = training_cost([(plan.layout.size, plan.trainable_size) for plan in plans], epochs)
        model = recipe.model.path
        if not self._seconds_per_cost(model):
            self.measured_paces[model] = _measure_seconds(prepared, epochs, self.runner.state) / cost
        seconds = self._seconds_per_cost(model) * cost
        agreed: float = broadcast_from_main(self.runner.state, lambda: seconds)
        return agreed

    def note_underestimate(self, recipe: Recipe, factor: float) -> None:
        """Expect longer durations after a part that was ended because it took too long.

        Args:
            recipe: Recipe of the part.
            factor: Time that it took, divided by the expected time.
        """
        before = self.underestimates.get(recipe.model.path, 1.0)
        self.underestimates[recipe.model.path] = before * UNDERESTIMATE * max(1.0, factor)

    def _seconds_per_cost(self, model: str) -> float:
        """Return the duration of a part of a checkpoint divided by its computation; 0 if it is not known."""
        trained = [trial for trial in self.trials if trains(trial) and trial.recipe.model.path == model]
        slowest = max((_part_seconds(trial) / trial.cost for trial in trained), default=0.0)
        return self.underestimates.get(model, 1.0) * (slowest or self.measured_paces.get(model, 0.0))

    def _final_overhead(self, model: str | None = None) -> float:
        """Return the duration of the final run without its training: data, features, linear probe, report.

        Args:
            model: Checkpoint of the run; None takes the slowest one.
        """
        frozen = [
            list(trial.results.values())
            for trial in self.trials
            if not trains(trial) and model in (None, trial.recipe.model.path)
        ]
        return max(map(self._overhead_of, frozen), default=self._overhead_of([]))

    def _overhead_of(self, frozen: Sequence[TrialResult]) -> float:
        """Return the duration of the final run without its training, given results of frozen features, if any."""
        if not frozen:
            return self._overhead(0.0, 0.0)
        return self._overhead(frozen[0].milliseconds, fmean(result.seconds for result in frozen))

    def _overhead(self, milliseconds: float, fit: float) -> float:
        """Return the duration of the final run without its training.

        Args:
            milliseconds: Time of an example (milliseconds).
            fit: Time of a fit to frozen features (seconds).
        """
        predictions = TEST_PASSES * self.test_examples * milliseconds / 1000
        return FINAL_SECONDS + self.loading + predictions + 2 * WHOLE * fit

    def _left(self) -> float:
        return self.deadline - perf_counter()


def trains(trial: Trial) -> bool:
    """Return whether a trial has taken optimizer steps.

    Args:
        trial: Trial of any kind.
    """
    return any(any(result.epochs) for result in trial.results.values())


def _part_seconds(trial: Trial) -> float:
    return fmean(result.seconds for result in trial.results.values())


def _measure_seconds(prepared: PreparedRun, epochs: Sequence[float], state: PartialState) -> float:
    """Return the duration of training and evaluating a part, estimated by a few measured steps."""
    start = load_start(prepared, None, state)
    model, inputs, data = start.built.model, start.inputs, prepared.data
    training = sum(estimate_seconds(model, prepared.plan.stages, prepared.recipe, inputs))
    evaluated = sum(epochs) * len(data.validation or ()) + len(data.test or ())
    return MEASURED_SLACK * (training + evaluated * time_inference(model, inputs))
