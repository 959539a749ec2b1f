"""Selection of a trial: the rule of one standard error, and a score to expect that is not optimistic."""

from types import SimpleNamespace

import numpy as np
import pytest

from hf_finetune.runs.trial import TrialResult
from hf_finetune.search.parts import Part
from hf_finetune.search.selection import select
from hf_finetune.search.trial_table import trial_rows
from hf_finetune.search.trials import Trial
from hf_finetune.search.tune import SearchResult
from hf_finetune.targets.metric import MetricSettings
from hf_finetune.targets.scored_examples import ScoredExamples

PARTS = [Part(0, fold) for fold in range(1, 6)]


def scored(correct):
    labels = np.arange(len(correct)) % 2
    scores = np.eye(2)[np.where(correct, labels, 1 - labels)]
    return ScoredExamples(labels, scores, "single_label", settings=MetricSettings(("a", "b")))


def trial(correct, cost, parts=PARTS, smaller=None):
    """Return a trial whose predictions [parts, examples] are correct or not, with two classes."""
    results = {}
    for part in parts:
        row = correct[part.fold - 1]
        groups = tuple(f"{part.fold}-{index}" for index in range(len(row)))
        fewer = None if smaller is None else scored(smaller[part.fold - 1])
        results[part] = TrialResult(
            scored(row), groups, 1.0, (1.0,), (1.0,), cost, 10, 40, 1.0, smaller=fewer
        )
    return Trial(SimpleNamespace(), {}, results)


def draw(rng, accuracy, examples=100):
    return rng.random((5, examples)) < accuracy


def test_the_cheapest_trial_within_one_standard_error_is_selected():
    rng = np.random.default_rng(0)
    base = draw(rng, 0.7)
    almost = base.copy()
    almost[0, :3] = True  # a gain that noise explains
    better = base | draw(rng, 0.6)
    assert select([trial(almost, 9.0), trial(base, 1.0)], "accuracy", 100).winner == 1
    assert select([trial(better, 9.0), trial(base, 1.0)], "accuracy", 100).winner == 0


def test_a_trial_that_is_not_eligible_is_scored_but_not_selected():
    rng = np.random.default_rng(0)
    base = draw(rng, 0.7)
    better = base | draw(rng, 0.6)
    trials = [trial(better, 9.0), trial(base, 1.0)]
    every = select(trials, "accuracy", 100)
    chosen = select(trials, "accuracy", 100, eligible=[False, True])
    assert (every.winner, chosen.winner) == (0, 1)
    assert chosen.values == every.values
    alone = select(trials[1:], "accuracy", 100)
    assert chosen.expected == pytest.approx(alone.expected) and chosen.interval == pytest.approx(
        alone.interval
    )


def test_a_trial_with_some_parts_is_compared_on_these():
    rng = np.random.default_rng(1)
    base = draw(rng, 0.5)
    base[0] = rng.random(100) < 0.2  # the first fold is hard
    better = base | draw(rng, 0.5)
    selection = select([trial(base, 1.0), trial(better, 2.0, PARTS[:1])], "accuracy", 100)
    gain = better[0].mean() - base[0].mean()
    assert selection.values == pytest.approx([base.mean(), base.mean() + gain])
    assert selection.winner == 1


def test_a_trial_is_not_selected_because_little_is_known_about_it():
    """The second trial is as good as the first on one fold, where six of 20 predictions differ: its error is large."""
    base = np.tile(np.arange(20) < 12, (5, 1))
    other, better = base.copy(), base.copy()
    other[0, [0, 1, 2, 12, 13, 14]] ^= True
    better[:, 12:14] = True
    trials = [trial(base, 1.0), trial(other, 2.0, PARTS[:1]), trial(better, 9.0)]
    selection = select(trials, "accuracy", 100)
    assert selection.values == pytest.approx([0.6, 0.6, 0.7])
    assert selection.errors[1] > 0.1
    assert selection.winner == 2
    assert select([trials[0], trial(better, 2.0, PARTS[:1])], "accuracy", 100).winner == 1


def test_a_metric_that_is_lower_for_better_trials():
    rng = np.random.default_rng(2)
    base = draw(rng, 0.6)
    better = base | draw(rng, 0.7)
    selection = select([trial(base, 1.0), trial(better, 2.0)], "log_loss", 100)
    assert selection.winner == 1
    assert selection.values[1] < selection.values[0]
    assert selection.interval[0] < selection.expected < selection.interval[1]


def test_without_test_examples_there_is_no_interval():
    assert select([trial(draw(np.random.default_rng(3), 0.7), 1.0)], "accuracy", 0).interval is None


def test_the_interval_of_a_fraction_is_within_0_and_1():
    correct = draw(np.random.default_rng(5), 0.9, 10)
    low, high = select([trial(correct, 1.0)], "accuracy", 5).interval
    assert 0 < low < high == 1.0


def test_the_expected_score_is_raised_by_what_more_training_examples_bring():
    rng = np.random.default_rng(6)
    correct = draw(rng, 0.7)
    smaller = correct & draw(rng, 0.9)
    alone, raised = (
        select([trial(correct, 1.0, smaller=fewer)], "accuracy", 100) for fewer in (None, smaller)
    )
    gain = correct.mean() - smaller.mean()
    assert gain > 0.05
    assert raised.expected == pytest.approx(alone.expected + gain)
    assert raised.values == alone.values
    widths = [interval[1] - interval[0] for interval in (alone.interval, raised.interval)]
    assert widths[1] > widths[0]
    loss = select([trial(correct, 1.0, smaller=smaller)], "log_loss", 100)
    assert loss.expected < loss.values[0]
    perfect = select([trial(correct | True, 1.0, smaller=smaller)], "accuracy", 100)
    assert perfect.expected == perfect.interval[1] == 1.0


@pytest.mark.slow
@pytest.mark.parametrize("raised", [False, True])
def test_the_interval_covers_the_score_of_a_model_that_is_trained_on_more_examples(raised):
    """Accuracies 0.6, 0.7 and 0.8 after training on 64 %, 80 % and 100 % of the examples."""
    rng = np.random.default_rng(7)
    covered = []
    for _ in range(100):
        parts = draw(rng, 0.7)
        smaller = parts & draw(rng, 0.6 / 0.7) if raised else None
        low, high = select([trial(parts, 1.0, smaller=smaller)], "accuracy", 300).interval
        covered.append(low <= (rng.random(300) < 0.8).mean() <= high)
    assert (np.mean(covered) >= 0.9) == raised


@pytest.mark.slow
def test_the_expected_score_has_no_optimism_and_its_interval_covers_the_test_score():
    rng = np.random.default_rng(4)
    optimism, errors, covered = [], [], []
    for _ in range(60):
        trials = [trial(draw(rng, 0.7, 20), float(cost)) for cost in range(12)]  # all equally good
        selection = select(trials, "accuracy", 50)
        test_score = (rng.random(50) < 0.7).mean()
        optimism.append(max(selection.values) - 0.7)
        errors.append(selection.expected - 0.7)
        covered.append(selection.interval[0] <= test_score <= selection.interval[1])
    assert np.mean(optimism) > 0.03
    assert abs(np.mean(errors)) < 0.02
    assert np.mean(covered) >= 0.9


def test_an_estimated_score_stays_a_fraction():
    """A trial that is much better on the hardest fold would be better than perfect on all of them."""
    rng = np.random.default_rng(1)
    base = draw(rng, 0.95)
    base[0] = rng.random(100) < 0.3
    perfect = np.ones((5, 100), dtype=bool)
    trials = (trial(base, 1.0), trial(perfect, 2.0, PARTS[:1]))
    selection = select(trials, "accuracy", 100)
    assert selection.values[1] == 1.0
    rows = trial_rows(SearchResult(trials, (), "accuracy", tuple(PARTS), selection))
    assert all(0.0 <= row.low <= row.score <= row.high <= 1.0 for row in rows)
