"""`tune`: trials on held-out folds, a selected recipe, and an end that no kill changes."""

import csv
import json
import os
import signal
from pathlib import Path
from time import sleep

import pytest
from forked_cli import forked_cli
from run_helpers import tiny_text_recipe

from hf_finetune.cli.display import default_run_folder
from hf_finetune.distributed import start_processes
from hf_finetune.errors import InputError
from hf_finetune.recipe.load import dump_recipe, load_recipe, parse_recipe
from hf_finetune.runs.planner import plan
from hf_finetune.runs.trial import train_and_predict
from hf_finetune.search import parts, study, trials
from hf_finetune.search.parts import Part, PartLoader, choose_parts
from hf_finetune.search.space import read_space
from hf_finetune.search.trial_table import as_json
from hf_finetune.search.tune import tune

FIELDS = ["stages.1.lr=log:1e-4..1e-1", "stages.0.epochs=1,2"]
MEASURED = ("seconds", "milliseconds")


@pytest.fixture(scope="module")
def text_space(reviews, bert_checkpoint):
    return read_space(tiny_text_recipe(reviews, bert_checkpoint), FIELDS)


@pytest.fixture(autouse=True)
def few_parts(monkeypatch):
    shorten(monkeypatch)


def shorten(patch):
    """Divide examples once, into three folds."""
    patch.setattr(parts, "MIN_PREDICTIONS", 1)
    patch.setattr(parts, "FOLDS", 3)


def with_data(recipe, **changes):
    content = recipe.model_dump(mode="json")
    return parse_recipe({**content, "data": {**content["data"], **changes}})


def outcome(result):
    """Return the result of a search without what was measured."""
    content = as_json(result)
    for row in content["trials"]:
        for name in MEASURED:
            row.pop(name)
    return content


@pytest.fixture(scope="module")
def uninterrupted(text_space, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        shorten(patch)
        return tune(text_space, tmp_path_factory.mktemp("search") / "whole", max_trials=4)


def test_every_trial_predicts_each_example_outside_the_test_split_once(uninterrupted, text_space):
    data = PartLoader().load(text_space.recipe({}), Part(0, 1))[1]
    pool = sorted(data.pool.dataset["id"])
    complete = [trial for trial in uninterrupted.trials if len(trial.results) == 3]
    assert complete
    for trial in complete:
        assert sorted(name for result in trial.results.values() for name in result.groups) == pool
    assert len(pool) == 34  # of 40


def test_the_parts_depend_on_the_number_of_examples():
    assert choose_parts(5000) == (Part(0, 1),)


def test_few_examples_are_divided_several_times(monkeypatch):
    monkeypatch.setattr(parts, "MIN_PREDICTIONS", 600)
    monkeypatch.setattr(parts, "FOLDS", 5)
    assert len(choose_parts(100)) == 15
    assert len(choose_parts(400)) == 10
    assert len(choose_parts(1000)) == 5


@pytest.mark.parametrize("killed_at", [(2, "after"), (6, "before")])
def test_a_killed_search_ends_as_without_the_kill(
    killed_at, text_space, uninterrupted, tmp_path, monkeypatch
):
    number, moment = killed_at
    calls = 0

    def kill(*arguments, **options):
        nonlocal calls
        calls += 1
        if calls == number and moment == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = train_and_predict(*arguments, **options)
        if calls == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    child = os.fork()
    if child == 0:
        trials.train_and_predict = kill
        tune(text_space, tmp_path / "search", max_trials=4)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    resumed = tune(text_space, tmp_path / "search", max_trials=4, resume=True)
    assert outcome(resumed) == outcome(uninterrupted)


def test_the_last_of_several_processes_makes_the_selection(text_space, tmp_path):
    folder, blocked, go_on = tmp_path / "search", tmp_path / "blocked", tmp_path / "go on"

    def wait(*arguments, **options):
        blocked.touch()
        while not go_on.exists():
            sleep(0.02)
        return train_and_predict(*arguments, **options)

    child = os.fork()
    if child == 0:
        trials.train_and_predict = wait
        result = tune(text_space, folder, max_trials=3)
        os._exit(len(result.trials) if not result.running else 100)
    try:
        while not blocked.exists():
            sleep(0.02)
        with pytest.raises(InputError, match="Got only trial 1 in other processes"):
            tune(text_space, folder, max_trials=1, resume=True)
        found = tune(text_space, folder, max_trials=3, resume=True)
        assert found.running == (1,) and [trial.number for trial in found.trials] == [2, 3]
        assert [row["number"] for row in as_json(found)["trials"]] in ([2, 3], [3, 2])
        assert (folder / "shared").is_dir()  # the other process needs it
    finally:
        go_on.touch()
        ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert ended == 3 and not (folder / "shared").exists()


def test_groups_stay_together_and_are_resampled_as_one(bert_checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr(parts, "MIN_PREDICTIONS", 80)
    path = tmp_path / "shops.csv"
    rows = [
        f"film {index} was {word} in {index % 10} ways,{word},{index % 10}"
        for index in range(40)
        for word in ("good", "bad")
    ]
    path.write_text("text,label,shop\n" + "\n".join(rows))
    recipe = with_data(
        tiny_text_recipe(path, bert_checkpoint),
        split={"validation": 0, "test": 0.1, "group": "shop"},
    )
    space = read_space(recipe, ["stages.1.lr=0.01,0.001"])
    result = tune(space, tmp_path / "search", max_trials=1)
    assert len(result.parts) == 6
    (trial,) = result.trials
    shops = [set(part.groups) for part in trial.results.values()]
    assert sum(map(len, shops[:3])) == len(set.union(*shops[:3]))  # no shop is in two folds
    assert len(set(trial.examples().groups.tolist())) == len(set.union(*shops)) == 9


def test_trials_share_the_stages_in_which_they_do_not_differ(reviews, bert_checkpoint, tmp_path, monkeypatch):
    space = read_space(tiny_text_recipe(reviews, bert_checkpoint), ["stages.1.lr=0.01,0.001"])
    shared, alone = tune(space, tmp_path / "shared", max_trials=2), []
    assert len(shared.trials) == 2
    for trial in shared.trials:
        part = next(iter(trial.results))
        fold_recipe, data = PartLoader().load(trial.recipe, part)
        result = train_and_predict(fold_recipe, data, tmp_path / "alone", start_processes())
        alone.append(result.examples.scores.tolist() == trial.results[part].examples.scores.tolist())
    assert alone == [True, True]
    assert not (tmp_path / "shared" / "shared").exists()


def test_the_test_split_is_not_read(text_space, tmp_path, monkeypatch):
    load = parts.load_data
    seen = []

    def watch(recipe, fold_seed=None):
        data = load(recipe, fold_seed)
        seen.append(set(data.test["id"]))
        return data

    monkeypatch.setattr(parts, "load_data", watch)
    tune(text_space, tmp_path / "search", max_trials=1)
    recipe = text_space.recipe({})
    test = set(load(recipe).test["id"])
    assert seen and not any(test & held_out for held_out in seen)


def test_a_recipe_that_diverges_has_no_score_and_the_others_go_on(reviews, bert_checkpoint, tmp_path):
    recipe = tiny_text_recipe(reviews, bert_checkpoint)
    space = read_space(recipe, ["stages.1.lr=0.005,1e30"])
    result = tune(space, tmp_path / "search", max_trials=4)
    assert [trial.fields["stages.1.lr"] for trial in result.failed]
    assert "diverged" in result.failed[0].failure
    assert list((tmp_path / "search").glob("trials/*/training-*")) == []
    assert result.winner.fields == {"stages.1.lr": 0.005}


def test_if_every_trial_fails_the_reasons_are_told(reviews, bert_checkpoint, tmp_path):
    recipe = tiny_text_recipe(reviews, bert_checkpoint)
    with pytest.raises(InputError, match=r"Every trial failed: .*diverged"):
        tune(read_space(recipe, ["stages.1.lr=1e30,1e31"]), tmp_path / "search", max_trials=2)


def test_with_many_examples_one_fold_is_held_out_and_trials_are_stopped_after_epochs(
    text_space, tmp_path, monkeypatch
):
    monkeypatch.setattr(parts, "FEW_EXAMPLES", 1)
    steps = []

    def stop_the_third(self, study, trial):
        steps.append((trial.number, trial.last_step))
        return trial.number == 2

    monkeypatch.setattr(study._Halving, "prune", stop_the_third)
    result = tune(text_space, tmp_path / "search", max_trials=4)
    assert result.parts == (Part(0, 1),)
    assert len(result.trials) == 3
    assert [trial.failure for trial in result.failed] == [""]  # stopped, not failed
    epochs = [step for number, step in steps if number == 0]
    assert epochs == list(range(1, len(epochs) + 1)) and len(epochs) > 1
    assert [step for number, step in steps if number == 2] == [1]


@pytest.mark.parametrize("seconds, message", [(1e-9, "--time must be long enough for a trial")])
def test_a_time_that_is_too_short_is_an_error(text_space, tmp_path, seconds, message):
    with pytest.raises(InputError, match=message):
        tune(text_space, tmp_path / "search", max_seconds=seconds)


def test_a_search_needs_a_limit(text_space, tmp_path):
    with pytest.raises(InputError, match="Set --trials or --time"):
        tune(text_space, tmp_path / "search")
    assert not (tmp_path / "search").exists()


def test_another_search_is_not_continued(text_space, uninterrupted, reviews, bert_checkpoint, tmp_path):
    tune(text_space, tmp_path / "search", max_trials=1)
    other = read_space(tiny_text_recipe(reviews, bert_checkpoint), [*FIELDS, "stages.1.epochs=1,2"])
    with pytest.raises(InputError, match="must contain the same search"):
        tune(other, tmp_path / "search", max_trials=1, resume=True)
    with pytest.raises(InputError, match="must be empty or not exist"):
        tune(text_space, tmp_path / "search", max_trials=1)
    with pytest.raises(InputError, match="must contain a search"):
        tune(text_space, tmp_path / "nothing", max_trials=1, resume=True)


def test_data_that_cannot_be_divided_is_an_error(bert_checkpoint, tmp_path):
    path = tmp_path / "few.csv"
    rows = "".join(
        f"film number {index} is {word},{word}\n" for index in range(2) for word in ("good", "bad")
    )
    path.write_text("text,label\n" + rows)
    recipe = with_data(tiny_text_recipe(path, bert_checkpoint), split={"validation": 0, "test": 0})
    with pytest.raises(InputError, match="must have at least 5 distinct examples"):
        tune(read_space(recipe, FIELDS), tmp_path / "search", max_trials=1)
    assert not (tmp_path / "search").exists()


def test_the_command_writes_leaderboard_and_recipe(reviews, bert_checkpoint, tmp_path):
    source = tmp_path / "recipe.yaml"
    source.write_text(dump_recipe(tiny_text_recipe(reviews, bert_checkpoint)))
    folder = tmp_path / "search"
    words = ["stages.1.lr=0.005,0.05", "seed=1", "--trials", "2", "--output-dir", folder]
    done = forked_cli("tune", source, *words)
    assert done.returncode == 0, done.stderr
    assert "Trial 1 done: accuracy" in done.stderr and "Stage 1 of 2" not in done.stderr
    assert "Expected accuracy on the test split:" in done.stdout
    assert f"hf-finetune run {folder}/recipe.yaml" in done.stdout
    with (folder / "leaderboard.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["selected"] for row in rows].count("True") == 1
    selected = next(row for row in rows if row["selected"] == "True")
    recipe = load_recipe(folder / "recipe.yaml")
    assert (recipe.seed, recipe.stages[1].lr) == (1, json.loads(selected["stages.1.lr"]))
    assert recipe.search is None


def test_the_first_trial_has_the_default_rate_of_the_checkpoint(reviews, bert_checkpoint, tmp_path):
    content = tiny_text_recipe(reviews, bert_checkpoint).model_dump(mode="json")
    content["stages"][1] = {"name": "all", "train": "all", "epochs": 1}
    recipe = parse_recipe(content)
    result = tune(read_space(recipe, ["stages.1.lr=log:1e-6..1e-1"]), tmp_path / "search", max_trials=1)
    resolved = plan(recipe).recipe.stages[1].lr
    assert result.trials[0].fields == {"stages.1.lr": resolved}


@pytest.mark.parametrize("command", ["run", "tune", "auto"])
def test_each_command_resumes_its_own_newest_folder(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    files = {"run": "manifest.json", "tune": "search.json", "auto": "search/request.json"}
    for day, name in enumerate([*files, *reversed(files)], 1):
        file = tmp_path / "runs" / f"photos-2026010{day}-000000" / files[name]
        file.parent.mkdir(parents=True)
        file.touch()
        if name == "auto":  # its final run has begun
            (file.parent.parent / "manifest.json").touch()
    newest = {"run": 6, "tune": 5, "auto": 4}[command]
    assert default_run_folder("photos", True, command) == Path("runs") / f"photos-2026010{newest}-000000"


def test_the_command_refuses_bad_values_before_it_trains(reviews, bert_checkpoint, tmp_path):
    source = tmp_path / "recipe.yaml"
    source.write_text(dump_recipe(tiny_text_recipe(reviews, bert_checkpoint)))
    folder = tmp_path / "search"
    done = forked_cli("tune", source, "stages.1.lr=log:2..1", "--trials", "2", "--output-dir", folder)
    assert done.returncode == 2 and "below the upper end" in done.stderr
    done = forked_cli("tune", source, "stages.1.lr=0.1,0.2", "--time", "soon", "--output-dir", folder)
    assert done.returncode == 2 and "--time must be a duration" in done.stderr
    assert not folder.exists()
