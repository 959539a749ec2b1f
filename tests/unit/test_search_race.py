"""Race of contenders: halving after each fold, and the time that the final run needs."""

import numpy as np
import pytest
from accelerate import PartialState

from hf_finetune.cache.cut_point import CacheUnavailableError
from hf_finetune.recipe.load import parse_recipe
from hf_finetune.runs.trial import TrialResult
from hf_finetune.search import race, race_time
from hf_finetune.search.callbacks import TimeUpError
from hf_finetune.search.contenders import Contender, with_epochs
from hf_finetune.search.parts import Part
from hf_finetune.search.race import Race
from hf_finetune.search.race_time import FINAL_SECONDS, RaceTime
from hf_finetune.targets.metric import MetricSettings
from hf_finetune.targets.scored_examples import ScoredExamples

PARTS = tuple(Part(0, fold) for fold in range(1, 6))
TWICE = tuple(Part(repeat, fold) for repeat in range(2) for fold in range(1, 6))
EXAMPLES, POOL = 40, 200


def recipe(epochs=8, model="m/x"):
    stages = [
        {"name": "head", "train": "head", "fit": "logistic_regression"},
        {"name": "all", "train": "all", "lr": 0.01, "epochs": epochs, "early_stopping": 3},
    ]
    return parse_recipe({"task": "image-classification", "model": model, "data": "d/x", "stages": stages})


def contender(name):
    return Contender(name, recipe())


def result(accuracy, part, seconds, epochs, milliseconds=1.0):
    """Return predictions of which the first ones are correct, shifted for each part."""
    labels = np.arange(EXAMPLES) % 2
    correct = np.roll(np.arange(EXAMPLES) < accuracy * EXAMPLES, 3 * part.fold)
    scores = np.eye(2)[np.where(correct, labels, 1 - labels)]
    examples = ScoredExamples(labels, scores, "single_label", settings=MetricSettings(("a", "b")))
    groups = tuple(f"{part.fold}-{index}" for index in range(EXAMPLES))
    return TrialResult(
        examples, groups, seconds, (0.0, epochs), (0.0, epochs), 10.0 + epochs, 10, 40, milliseconds
    )


class Clock:
    def __init__(self):
        self.now, self.fit_seconds = 0.0, 0.1
        self.milliseconds = {}

    def __call__(self):
        return self.now


class Runner:
    """Runner whose trainings advance a clock, and whose accuracies depend on the strategy."""

    def __init__(self, clock, accuracies, seconds_per_epoch=1.0):
        self.clock, self.accuracies, self.pace = clock, accuracies, seconds_per_epoch
        self.state, self.trained = PartialState(), []
        self.loader, self.trust_remote_code = None, False

    def run(self, trial, part, callbacks):
        strategy = trial.fields["strategy"].split(",")[0]
        epochs = trial.recipe.stages[-1].epochs
        if strategy == "fails":
            trial.failure = "it diverged"
            return False
        start = self.clock.now
        self.clock.now += self.pace * epochs
        if callbacks and self.clock.now > callbacks[0].deadline:
            self.clock.now = callbacks[0].deadline
            raise TimeUpError
        trial.results[part] = result(self.accuracies[strategy], part, self.clock.now - start, epochs)
        self.trained.append((strategy, part.fold))
        return True

    def store(self, trial):
        pass


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(race, "perf_counter", clock)
    monkeypatch.setattr(race_time, "perf_counter", clock)

    def judge(recipe, parts, *words, can_begin, has_time, **options):
        milliseconds = clock.milliseconds.get(recipe.model.path, 5.0)
        if not can_begin(POOL, milliseconds):
            return {}
        clock.now += POOL * milliseconds / 1000
        results = {}
        for part in parts:
            if results and not has_time(list(results.values())):
                break
            clock.now += clock.fit_seconds
            results[part] = result(0.5, part, clock.fit_seconds, 0.0, milliseconds)
        return results

    monkeypatch.setattr(race, "judge_features", judge)
    monkeypatch.setattr(
        RaceTime, "expected_seconds", lambda self, recipe: self.runner.pace * recipe.stages[-1].epochs
    )
    return clock


def run_race(runner, names, deadline=None):
    ends = []
    running = Race(
        RaceTime(runner, PARTS, deadline, 20),
        "accuracy",
        finished=lambda trial, number, end, metric, best: ends.append((trial.fields["strategy"], end)),
    )
    running.judge_frozen([contender("frozen features")], None)
    running.run([contender(name) for name in names])
    return running, ends


def test_the_better_half_goes_on_after_each_fold(clock):
    runner = Runner(clock, {"a": 0.5, "b": 0.9, "c": 0.7, "d": 0.6})
    running, ends = run_race(runner, "abcd")
    folds = {name: [fold for strategy, fold in runner.trained if strategy == name] for name in "abcd"}
    assert folds == {"a": [1], "b": [1, 2, 3, 4, 5], "c": [1, 2], "d": [1]}
    assert dict(ends) == {
        "frozen features": "done",
        "a": "stopped",
        "b": "done",
        "c": "stopped",
        "d": "stopped",
    }
    assert len(running.trials) == 5


def test_a_contender_that_fails_is_left_out(clock):
    runner = Runner(clock, {"a": 0.6})
    running, ends = run_race(runner, ["fails", "a"])
    assert ("fails", "failed") in ends and ("a", "done") in ends
    assert [trial.failure for trial in running.trials] == ["", "it diverged", ""]


def test_a_contender_that_fails_on_a_later_fold_is_reported_as_failed(clock):
    runner = Runner(clock, {"a": 0.6})
    run = runner.run

    def fail_later(trial, part, callbacks):
        trial.failure = "it diverged" if part.fold > 1 else ""
        return part.fold == 1 and run(trial, part, callbacks)

    runner.run = fail_later
    _, ends = run_race(runner, ["a"])
    assert ("a", "failed") in ends


def test_there_is_time_for_the_final_run(clock):
    runner = Runner(clock, {"a": 0.6, "b": 0.7}, seconds_per_epoch=2.0)
    deadline = 120.0
    run_race(runner, ["a", "b"], deadline)
    final = 2.0 * 8 * 5 / 4 + FINAL_SECONDS
    assert runner.trained
    assert clock.now + final <= deadline


def test_a_contender_without_time_has_fewer_epochs(clock):
    runner = Runner(clock, {"a": 0.6}, seconds_per_epoch=10.0)
    running, ends = run_race(runner, ["a"], 100.0)
    ((name, _),) = [end for end in ends if end[0] != "frozen features"]
    assert name.startswith("a, ") and name.endswith(("epoch", "epochs"))
    assert running.trials[1].recipe.stages[-1].epochs < 8


def test_a_contender_without_time_for_an_epoch_is_skipped(clock):
    runner = Runner(clock, {"a": 0.6}, seconds_per_epoch=1000.0)
    running, _ = run_race(runner, ["a"], 100.0)
    assert [skipped.strategy for skipped in running.skipped] == ["a"]
    assert runner.trained == [] and running.trials[0].results


def test_a_contender_that_takes_longer_than_expected_is_ended(clock, monkeypatch):
    monkeypatch.setattr(RaceTime, "expected_seconds", lambda self, recipe: 1.0)
    runner = Runner(clock, {"a": 0.6}, seconds_per_epoch=1000.0)
    running, ends = run_race(runner, ["a"], 100.0)
    assert ("a", "out of time") in ends
    assert clock.now <= 100.0 - FINAL_SECONDS
    assert running.trials[1].results == {}


def test_a_contender_is_ended_when_its_final_run_would_not_fit(clock, monkeypatch):
    """A part that takes longer than estimated ends early enough for a shorter contender."""
    monkeypatch.setattr(
        RaceTime,
        "expected_seconds",
        lambda self, recipe: self._seconds_per_cost("m/x") * recipe.stages[-1].epochs,
    )
    runner = Runner(clock, {"a": 0.6, "b": 0.6}, seconds_per_epoch=10.0)
    running = Race(RaceTime(runner, PARTS, 100.0, 20), "accuracy")
    running.time.measured_paces["m/x"] = 1.0
    running.judge_frozen([contender("frozen features")], None)
    running.run([contender("a"), contender("b")])
    cut, shorter = running.trials[1:]
    assert cut.results == {} and cut.fields["strategy"] == "a"
    assert shorter.results and shorter.fields["strategy"].startswith("b, ")
    (seconds,) = {result.seconds for result in shorter.results.values()}
    assert clock.now + seconds * 5 / 4 + FINAL_SECONDS <= 100.0


def test_only_trials_whose_final_run_fits_can_be_selected(clock):
    running, _ = run_race(Runner(clock, {"a": 0.6, "b": 0.7}), ["a", "b"], 1000.0)
    assert running.time.can_finish(1000.0) == [True, True, True]
    clock.now = 1000.0 - FINAL_SECONDS - 1.0
    assert running.time.can_finish(100.0) == [True, False, False]
    clock.now = 2000.0
    assert running.time.can_finish(100.0) == [True, False, False], "the shortest one"
    assert running.time.can_finish(None) == [True, True, True]


def test_the_time_left_decides_how_often_the_last_stage_is_trained(clock):
    """A final run takes 12 s, and 1.2 times 8 epochs of 1.25 s for each training, with a slack of 1.2."""
    running, _ = run_race(Runner(clock, {"a": 0.6}), ["a"], 10_000.0)
    trained = running.trials[1]
    for left, seeds in ((0.0, 1), (20.0, 1), (45.0, 2), (200.0, 5)):
        clock.now = 10_000.0 - left
        assert running.time.possible_seeds(trained) == seeds
    unlimited, _ = run_race(Runner(clock, {"a": 0.6}), ["a"])
    assert unlimited.time.possible_seeds(unlimited.trials[1]) == 1


def test_fewer_epochs_are_at_least_one():
    assert with_epochs(contender("a"), 0.12) is None
    assert with_epochs(contender("a"), 0.5).recipe.stages[-1].epochs == 4
    assert with_epochs(contender("a"), 0.13).recipe.stages[-1].epochs == 1
    assert with_epochs(contender("a"), 0.5).fields["strategy"] == "a, 4 epochs"
    assert with_epochs(contender("a"), 1.0) is None


def test_fits_to_frozen_features_leave_time_for_the_final_run(clock):
    clock.fit_seconds = 10.0
    deadline = 80.0
    running, ends = run_race(Runner(clock, {}), [], deadline)
    (trial,) = running.trials
    assert 1 < len(trial.results) < len(PARTS)
    assert ends == [("frozen features", "out of time")]
    assert clock.now + 2 * 10.0 * 5 / 4 + FINAL_SECONDS <= deadline


def test_further_divisions_into_folds_take_little_of_the_time(clock):
    """Five fits of 10 s more are too much of 300 s, and little of 3,000 s."""
    clock.fit_seconds = 10.0
    for deadline, judged in ((300.0, 5), (3000.0, 10)):
        clock.now = 0.0
        running = Race(RaceTime(Runner(clock, {}), TWICE, deadline, 20), "accuracy")
        running.judge_frozen([contender("frozen features")], None)
        (trial,) = running.trials
        assert len(trial.results) == judged


def test_the_features_of_a_second_checkpoint_are_judged_only_if_there_is_time(clock):
    clock.fit_seconds = 8.0
    for deadline, judged in ((90.0, 1), (200.0, 2)):
        clock.now = 0.0
        running = Race(RaceTime(Runner(clock, {}), PARTS, deadline, 20), "accuracy")
        running.judge_frozen([contender("frozen features") for _ in range(2)], None)
        assert len(running.trials) == judged
        assert clock.now < deadline


def frozen_features(*names):
    return [Contender("frozen features", recipe(model=f"m/{name}")) for name in names]


def test_the_features_of_a_slow_checkpoint_are_not_begun_without_time(clock):
    """Its 200 examples take 50 s, and the test examples as long as a tenth of them, twice."""
    clock.milliseconds = {"m/slow": 250.0}
    for deadline, judged in ((70.0, ["m/x", "m/y"]), (100.0, ["m/x", "m/slow", "m/y"])):
        clock.now = 0.0
        running = Race(RaceTime(Runner(clock, {}), PARTS, deadline, 20), "accuracy")
        running.judge_frozen(frozen_features("x", "slow", "y"), None)
        assert [trial.recipe.model.path for trial in running.trials] == judged
        assert [skipped.fields["model"] for skipped in running.skipped] == ["m/slow"] * (3 - len(judged))
        assert clock.now <= deadline - FINAL_SECONDS


def test_the_features_of_a_slow_checkpoint_are_not_begun_after_their_share_of_the_time(clock):
    clock.milliseconds = {"m/slow": 250.0}
    running = Race(RaceTime(Runner(clock, {}), PARTS, 1000.0, 20), "accuracy")
    running.judge_frozen(frozen_features("x", "slow"), 40.0)
    assert [trial.recipe.model.path for trial in running.trials] == ["m/x"]


def test_a_checkpoint_without_results_has_no_part_in_the_estimates(clock, monkeypatch):
    judge = race.judge_features

    def fail_first(recipe, *words, **options):
        if recipe.model.path == "m/x":
            raise CacheUnavailableError("no frozen layers")
        return judge(recipe, *words, **options)

    monkeypatch.setattr(race, "judge_features", fail_first)
    running = Race(RaceTime(Runner(clock, {}), PARTS, 100.0, 20), "accuracy")
    running.judge_frozen(frozen_features("x", "y"), None)
    assert [trial.failure for trial in running.trials] == ["no frozen layers", ""]


def test_layers_are_trained_of_the_best_checkpoint_or_of_faster_ones(clock, monkeypatch):
    judged = {"m/u": (0.5, 1.0), "m/v": (0.8, 5.0), "m/w": (0.6, 9.0), "m/x": (0.7, 4.0)}

    def judge(recipe, parts, *words, **options):
        accuracy, milliseconds = judged[recipe.model.path]
        return {part: result(accuracy, part, 0.1, 0.0, milliseconds) for part in parts}

    monkeypatch.setattr(race, "judge_features", judge)
    running = Race(RaceTime(Runner(clock, {}), PARTS, None, 20), "accuracy")
    running.judge_frozen(frozen_features("u", "v", "w", "x"), None)
    assert running.models() == ["m/v", "m/x", "m/u"]


def test_a_race_says_whether_there_was_time_for_a_contender(clock):
    for deadline, has_time in ((100.0, False), (100_000.0, True)):
        runner = Runner(clock, {"a": 0.6}, seconds_per_epoch=1000.0)
        clock.now = 0.0
        running = Race(RaceTime(runner, PARTS, deadline, 20), "accuracy")
        running.judge_frozen([contender("frozen features")], None)
        assert running.run([contender("a")]) is has_time


def test_the_final_run_of_a_fast_checkpoint_fits_longer_than_that_of_a_slow_one(clock):
    clock.milliseconds = {"m/slow": 250.0}
    running = Race(RaceTime(Runner(clock, {}), PARTS, 1000.0, 20), "accuracy")
    running.judge_frozen(frozen_features("x", "slow"), None)
    clock.now = 1000.0 - FINAL_SECONDS - 1.0
    assert running.time.can_finish(200.0) == [True, True], "10 s more"
    assert running.time.can_finish(1.0) == [True, False], "its test examples take 10 s"


def test_loading_the_data_again_is_counted(clock):
    running = Race(RaceTime(Runner(clock, {"a": 0.6}), PARTS, 100.0, 20, loading=85.0), "accuracy")
    running.judge_frozen([contender("frozen features")], None)
    running.run([contender("a")])
    assert [trial.fields["strategy"] for trial in running.trials] == ["frozen features"]
    assert clock.now <= 100.0 - 85.0
