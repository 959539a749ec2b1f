"""Study of a search: suggestions that depend on seed and history alone, and trials that other processes left."""

import pytest
from test_search_space import recipe

from hf_finetune.search.space import read_space
from hf_finetune.search.study import Study
from hf_finetune.training.run_lock import RunLock

SPACE = read_space(recipe(), ["stages.1.lr=log:1e-5..1e-1", "stages.0.epochs=2,5,10"])


def study(folder, seed=0):
    folder.mkdir(exist_ok=True)
    return Study(folder, SPACE, SPACE.first_values(recipe()), maximize=True, seed=seed)


def score(values):
    return -abs(values["stages.1.lr"] - 0.02) + 0.001 * int(values["stages.0.epochs"])


def finish(suggestion):
    suggestion.finish(score(suggestion.values), complete=True)


def suggest(folder, count, seed=0, sessions=1):
    """Return the values of trials, asked for in one or several sessions."""
    values = []
    for _ in range(sessions):
        with study(folder, seed) as opened:
            for _ in range(count // sessions):
                suggestion = opened.ask()
                values.append(suggestion.values)
                finish(suggestion)
    return values


def test_the_first_trial_has_the_values_of_the_recipe(tmp_path):
    assert suggest(tmp_path, 1) == [{"stages.1.lr": 0.01, "stages.0.epochs": "2"}]


def test_suggestions_do_not_depend_on_interruptions(tmp_path):
    values = suggest(tmp_path / "once", 20)
    assert suggest(tmp_path / "often", 20, sessions=10) == values
    assert suggest(tmp_path / "other", 20, seed=1) != values
    assert len({value["stages.1.lr"] for value in values}) == 20


def test_the_sampler_learns(tmp_path):
    values = suggest(tmp_path, 40)
    late = [score(value) for value in values[25:]]
    early = [score(value) for value in values[1:9]]
    assert sum(late) / len(late) > sum(early) / len(early)


def test_an_unfinished_trial_is_continued_with_its_values(tmp_path):
    with study(tmp_path) as opened:
        finish(opened.ask())
        left = opened.ask()
        left.report(0.5, 1)
    with study(tmp_path) as opened:
        again = opened.ask()
        assert (again.number, again.values) == (left.number, left.values)
        finish(again)
        assert opened.ask().number == left.number + 1


def test_a_trial_of_a_running_process_is_not_continued(tmp_path):
    with study(tmp_path) as opened:
        running = opened.ask()
        opened._worker = tmp_path / "workers" / "another"
        opened._worker.mkdir()
        RunLock(opened._worker).acquire()
        assert opened.ask().number == running.number + 1


def test_the_number_of_trials_counts_those_that_are_running(tmp_path):
    with study(tmp_path) as opened:
        finish(opened.ask(2))
        opened.ask(2)
        assert opened.ask(2) is None


def test_the_worst_trials_are_stopped_after_few_steps(tmp_path):
    scores = [0.9, 0.5, 0.6, 0.95, 0.4, 0.7, 0.97]
    stopped = []
    with study(tmp_path) as opened:
        for value in scores:
            suggestion = opened.ask()
            stopped.append(suggestion.report(value, 1))
            suggestion.report(value, 2)
            suggestion.finish(value, complete=not stopped[-1])
    assert stopped == [False, False, False, False, True, True, False]


def test_all_tried_values_are_listed(tmp_path):
    values = suggest(tmp_path, 4)
    with study(tmp_path) as opened:
        assert opened.tried_values() == {
            number: SPACE.decode(value) for number, value in enumerate(values, start=1)
        }


def test_trials_of_other_processes_are_known(tmp_path):
    with study(tmp_path) as first, study(tmp_path) as second:
        assert first.best() is None
        started, other = first.ask(), second.ask()
        other.finish(0.7, complete=True)
        assert second.running_elsewhere() == (started.number + 1,) and first.running_elsewhere() == ()
        assert first.best() == (0.7, other.number + 1)
    assert study(tmp_path).running_elsewhere() == ()  # the process that trained it has ended


def test_a_trial_that_failed_is_not_repeated(tmp_path):
    with study(tmp_path) as opened:
        first = opened.ask()
        first.finish(None, complete=False)
        assert opened.ask().number == first.number + 1


@pytest.mark.parametrize("leave", [True, False])
def test_the_folder_of_workers_is_removed(tmp_path, leave):
    with study(tmp_path) as opened:
        suggestion = opened.ask()
        if not leave:
            finish(suggestion)
    assert not (tmp_path / "workers").exists()
