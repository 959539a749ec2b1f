"""Race of contenders: all of them are judged on a fold, and the better half goes on to the next one."""

from collections.abc import Sequence
from math import ceil, inf
from operator import itemgetter
from time import perf_counter

from hf_finetune.cache.cut_point import CacheUnavailableError
from hf_finetune.distributed import broadcast_from_main
from hf_finetune.errors import InputError
from hf_finetune.evaluation.metrics import sign_of
from hf_finetune.recipe.schema import Recipe
from hf_finetune.runs.trial import TrialResult
from hf_finetune.search.callbacks import DeadlineCallback, TimeUpError
from hf_finetune.search.contenders import Contender, with_epochs
from hf_finetune.search.frozen import judge_features
from hf_finetune.search.parts import FOLDS, Part
from hf_finetune.search.race_time import RaceTime
from hf_finetune.search.selection import select
from hf_finetune.search.trials import Trial
from hf_finetune.search.tune import (
    DONE,
    FAILED,
    OUT_OF_TIME,
    STOPPED,
    Finished,
    Progress,
)

__all__ = ["Race"]


class Race:
    """Race of contenders within a time that includes the final run of the winner.

    Args:
        time: Time of the race, with the runner that trains the contenders and the parts in the order of their use.
        metric: Metric by which contenders are compared.
        progress: Called before each part.
        finished: Called after each contender.
    """

    def __init__(
        self,
        time: RaceTime,
        metric: str,
        *,
        progress: Progress | None = None,
        finished: Finished | None = None,
    ):
        self.time, self.metric = time, metric
        self.runner, self.parts, self.trials = time.runner, time.parts, time.trials
        self.progress, self.finished = progress, finished
        self.skipped: list[Contender] = []

    def judge_frozen(self, contenders: Sequence[Contender], deadline: float | None) -> None:
        """Judge frozen features on all parts if there is time.

        Args:
            contenders: The contenders; their trials are added to ``trials``. The first is judged in any case, each
                other one if there is time for it.
            deadline: Time of ``perf_counter`` by which they should be judged; None is any.
        """
        until = inf if deadline is None else deadline
        for contender in contenders:
            if self.trials and not self.time.lasts(until=until):
                self.skipped.append(contender)
            else:
                self._judge_features(contender, until)

    def models(self) -> list[str]:
        """Return the best checkpoint so far, and then those that are faster, the best of these first."""
        judged = [trial for trial in self.trials if trial.results]
        if not judged:
            return [self.trials[0].recipe.model.path]
        values = zip(self._ordered_values(judged), judged, strict=True)
        best, *others = [trial for _, trial in sorted(values, key=itemgetter(0), reverse=True)]
        faster = [trial for trial in others if _milliseconds(trial) < _milliseconds(best)]
        return list(dict.fromkeys(trial.recipe.model.path for trial in (best, *faster)))

    def run(self, contenders: Sequence[Contender]) -> bool:
        """Judge contenders that train layers: all on the first part, and the better half on each further one.

        Args:
            contenders: The contenders; their trials are added to ``trials``.

        Returns:
            Whether at least one was begun.
        """
        before = len(self.trials)
        active = [trial for contender in contenders for trial in self._begin(contender)]
        for part in self.parts[1:]:
            active = self._better_half(active)
            for trial in active:
                if self.time.lasts_for_part(trial):
                    self._run_part(trial, part)
        for trial in active:
            self._report(trial, self._end(trial))
        return len(self.trials) > before

    def _judge_features(self, contender: Contender, until: float) -> None:
        """Judge a head on frozen features: if it is fitted, the features are computed once for all parts."""
        judged = broadcast_from_main(self.runner.state, lambda: self._frozen_results(contender.recipe, until))
        if judged == {}:
            self.skipped.append(contender)
            return
        trial = Trial(contender.recipe, contender.fields)
        self.trials.append(trial)
        if isinstance(judged, str):
            trial.failure = judged
        elif judged is not None:
            trial.results.update(judged)
            self.runner.store(trial)
        else:
            for part in self.parts:
                if trial.results and not self.time.lasts_for_part(trial):
                    break
                if not self._run_part(trial, part):
                    break
        self._report(trial, self._end(trial))

    def _frozen_results(self, recipe: Recipe, until: float) -> dict[Part, TrialResult] | str | None:
        """Return the results of a fitted head, the reason why there are none, or None for a head that is trained.

        There are no results if the features would not be computed in time.
        """
        runner = self.runner

        def can_begin(examples: int, milliseconds: float) -> bool:
            return not self.trials or self.time.lasts_for_features(examples, milliseconds, until)

        try:
            return judge_features(
                recipe,
                self.parts,
                runner.loader,
                can_begin=can_begin,
                has_time=self.time.lasts_for_fit,
                trust_remote_code=runner.trust_remote_code,
            )
        except (CacheUnavailableError, InputError) as error:
            return " ".join(str(error).split())

    def _begin(self, contender: Contender) -> list[Trial]:
        """Judge a contender that trains layers on the first part, with fewer epochs if there is no time for all."""
        if not self.time.lasts():
            self.skipped.append(contender)
            return []
        seconds, longest = self.time.expected_seconds(contender.recipe), self.time.longest_part()
        if seconds > longest:
            shorter = with_epochs(contender, longest / seconds) if longest > 0 else None
            if shorter is None:
                self.skipped.append(contender)
                return []
            contender, seconds = shorter, longest
        trial = Trial(contender.recipe, contender.fields)
        self.trials.append(trial)
        begun = perf_counter()
        if self._run_part(trial, self.parts[0]):
            return [trial]
        if self.time.is_limited and not trial.failure:
            self.time.note_underestimate(trial.recipe, (perf_counter() - begun) / seconds)
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

    def _ordered_values(self, trials: Sequence[Trial]) -> list[float]:
        """Return the score of each trial, greater for better trials."""
        if not trials:
            return []
        return [sign_of(self.metric) * value for value in select(trials, self.metric, 0).values]

    def _run_part(self, trial: Trial, part: Part) -> bool:
        """Train a trial on a part, and return whether there is a result."""
        if self.progress is not None:
            self.progress(trial, self.trials.index(trial) + 1, part, len(self.parts))
        callbacks = [DeadlineCallback(self.time.latest_end(trial))] if self.time.is_limited else []
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
            self.finished(trial, self.trials.index(trial) + 1, end, self.metric, None)


def _milliseconds(trial: Trial) -> float:
    return next(iter(trial.results.values())).milliseconds
