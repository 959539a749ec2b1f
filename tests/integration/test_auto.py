"""`auto`: strategies judged on held-out folds, a final run on all other examples, and an end that no kill changes."""

import json
import os
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch
from accelerate import PartialState
from forked_cli import forked_cli
from safetensors.torch import load_file

from hf_finetune.cache import writer
from hf_finetune.data.recipe_data import load_data
from hf_finetune.errors import InputError
from hf_finetune.recipe.load import load_recipe
from hf_finetune.report import page
from hf_finetune.runs import run as runs_run
from hf_finetune.runs.run import run
from hf_finetune.runs.trial import train_and_predict
from hf_finetune.search import auto as search_auto
from hf_finetune.search import contenders, frozen, parts, trials
from hf_finetune.search.auto import AutoProgress, auto
from hf_finetune.search.inspect_data import inspect_data
from hf_finetune.search.race_time import RaceTime
from hf_finetune.search.selection import select
from hf_finetune.search.stored_result import read_result
from hf_finetune.search.trial_table import as_json

MEASURED = ("seconds", "milliseconds")


@pytest.fixture(autouse=True)
def short_trials(monkeypatch):
    """Divide examples once, train two epochs, and draw no figures."""
    shorten(monkeypatch)


def shorten(patch):
    patch.setattr(parts, "MIN_PREDICTIONS", 1)
    patch.setattr(page, "figures_of", lambda record: [])
    write = contenders.draft_recipe
    patch.setattr(contenders, "draft_recipe", lambda *words: write(*words).replace("epochs: 6", "epochs: 2"))


def search(squares, checkpoint, folder, **options):
    options = {"max_trials": 3, "models": [str(checkpoint)], **options}
    return auto(str(squares), folder, **options)


def outcome(result):
    content = as_json(result.search)
    for row in content["trials"]:
        for name in MEASURED:
            row.pop(name)
    return content


@pytest.fixture(scope="module")
def found(squares, timm_checkpoint, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        shorten(patch)
        return search(squares, timm_checkpoint, tmp_path_factory.mktemp("auto") / "run")


def weights(folder):
    return load_file(folder / "model" / "model.safetensors")


def same_weights(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_frozen_features_are_judged_on_all_folds_and_others_on_some(found):
    first, *others = found.search.trials
    assert first.fields["strategy"] == "frozen features"
    assert len(first.results) == 5
    assert others and all(1 <= len(trial.results) <= 5 for trial in others)


def test_the_final_run_trains_on_all_examples_outside_the_test_split(found, squares):
    recipe = load_recipe(found.run.folder / "recipe.yaml")
    data = load_data(recipe)
    assert recipe.data.split.merge_validation and data.validation is None
    searched = load_data(found.search.winner.recipe)
    assert data.test["id"][:] == searched.test["id"][:]
    assert sorted(data.train["id"]) == sorted([*searched.train["id"], *searched.validation["id"]])


def test_the_recipe_repeats_the_model_bit_for_bit(found, tmp_path):
    again = run(load_recipe(found.run.folder / "recipe.yaml"), tmp_path / "again")
    assert same_weights(weights(again.folder), weights(found.run.folder))


def test_the_score_to_expect_is_written_before_the_test_split_is_evaluated(
    squares, timm_checkpoint, tmp_path, monkeypatch
):
    events = []
    evaluate = runs_run.save_and_evaluate
    expected = tmp_path / "run" / "search" / "result.json"
    monkeypatch.setattr(
        runs_run,
        "save_and_evaluate",
        lambda *words: events.append(expected.is_file()) or evaluate(*words),
    )
    progress = AutoProgress(selected=lambda result: events.append("selected"))
    result = search(squares, timm_checkpoint, tmp_path / "run", max_trials=1, progress=progress)
    assert events == ["selected", True]
    content = json.loads(expected.read_text())
    assert content["expected"] == result.search.selection.expected
    low, high = content["interval"]
    assert low <= content["expected"] <= high


def test_the_report_has_all_trials_and_the_score_that_was_expected(found):
    text = (found.run.folder / "report.html").read_text()
    assert '<a href="#search">Search</a>' in text
    assert text.count(", model: ") == len(found.search.trials)
    assert text.count("(selected)") == 1
    assert f"was {found.search.selection.expected:.3f} (95 % interval" in text
    assert f"the result is {found.run.metrics['test']['accuracy']:.3f}" in text


def test_strategies_without_time_are_named(squares, timm_checkpoint, tmp_path, monkeypatch):
    """Every strategy that trains layers is estimated to take an hour."""
    monkeypatch.setattr(RaceTime, "expected_seconds", lambda self, recipe: 3600.0)
    result = search(squares, timm_checkpoint, tmp_path / "run", max_trials=None, max_seconds=300.0)
    untried = [fields["strategy"] for fields in result.search.untried]
    assert untried[0] == "linear probe, then fine-tune" and len(untried) == 5
    text = (result.run.folder / "report.html").read_text()
    assert text.count("Not tried, for lack of time: strategy: linear probe, then fine-tune") == 1


def test_frozen_features_predict_as_a_run_of_their_strategy(found, squares, timm_checkpoint, tmp_path):
    trial = found.search.trials[0]
    part, judged = next(iter(trial.results.items()))
    loader = parts.PartLoader()
    fold_recipe, data = loader.load(trial.recipe, part)
    merged = fold_recipe.data.model_copy(
        update={"split": fold_recipe.data.split.model_copy(update={"validation": 0.0})}
    )
    recipe = fold_recipe.model_copy(update={"data": merged})
    result = run(recipe, tmp_path / "fold")
    correct = judged.examples.decisions == judged.examples.labels
    assert result.metrics["test"]["accuracy"] == pytest.approx(correct.mean())
    assert len(data.test) == len(judged.examples)


def test_frozen_features_are_also_fitted_to_fewer_examples(found):
    for result in found.search.trials[0].results.values():
        assert np.array_equal(result.smaller.labels, result.examples.labels)
        assert not np.array_equal(result.smaller.scores, result.examples.scores)
    assert all(result.smaller is None for result in found.search.trials[1].results.values())


def test_the_best_strategy_is_tuned_if_trials_are_left(squares, timm_checkpoint, tmp_path):
    result = search(squares, timm_checkpoint, tmp_path / "run", max_trials=8, quality="good")
    tuned = [trial for trial in result.search.trials if "stages.1.lr" in trial.fields]
    assert len(result.search.trials) + len(result.search.failed) == 8
    assert len(tuned) == 2  # one with frozen features and five strategies come first
    assert all(trial.recipe.stages[1].lr == trial.fields["stages.1.lr"] for trial in tuned)
    assert len({trial.fields["strategy"] for trial in tuned}) == 1


def test_the_final_run_averages_trainings_in_the_time_left(squares, timm_checkpoint, tmp_path, monkeypatch):
    def select_trained(judged, *words, **options):
        selection = select(judged, *words, **options)
        trained = [index for index, trial in enumerate(judged) if len(trial.recipe.stages) > 1]
        return replace(selection, winner=trained[0])

    monkeypatch.setattr(search_auto, "select", select_trained)
    monkeypatch.setattr(RaceTime, "possible_seeds", lambda self, trial: 2)
    result = search(squares, timm_checkpoint, tmp_path / "run", quality="fast")
    folder = result.run.folder
    assert [stage.seeds for stage in load_recipe(folder / "recipe.yaml").stages] == [None, 2]
    assert len(result.run.metrics["stages"][1]["seeds"]) == 2
    assert json.loads((folder / "search" / "result.json").read_text(encoding="utf-8"))["seeds"] == 2
    stored = read_result(
        folder / "search", trials.TrialRunner(folder / "search", PartialState()), result.search.parts
    )
    assert stored.seeds == 2


def kill_in_second_training():
    calls = []

    def train(*arguments, **options):
        calls.append(1)
        if len(calls) == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return train_and_predict(*arguments, **options)

    trials.train_and_predict = train


def kill_before_evaluation():
    runs_run.save_and_evaluate = lambda *words: os.kill(os.getpid(), signal.SIGKILL)


def search_killed(plan_kill, *words, **options):
    child = os.fork()
    if child == 0:
        plan_kill()
        search(*words, **options)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


@pytest.mark.parametrize("plan_kill", [kill_in_second_training, kill_before_evaluation])
def test_a_killed_search_ends_as_without_the_kill(plan_kill, squares, timm_checkpoint, found, tmp_path):
    search_killed(plan_kill, squares, timm_checkpoint, tmp_path / "run")
    resumed = search(squares, timm_checkpoint, tmp_path / "run", resume=True)
    assert outcome(resumed) == outcome(found)
    assert same_weights(weights(resumed.run.folder), weights(found.run.folder))


def test_a_killed_final_run_is_resumed_with_the_selected_recipe(squares, timm_checkpoint, tmp_path):
    """When it is resumed, no time is left: another recipe would be selected."""
    folder, time = tmp_path / "run", {"max_trials": None, "max_seconds": 60.0}
    search_killed(kill_before_evaluation, squares, timm_checkpoint, folder, **time)
    trained = load_recipe(folder / "recipe.yaml")
    stored = json.loads((folder / "search" / "result.json").read_text())
    resumed = search(squares, timm_checkpoint, folder, resume=True, max_trials=None, max_seconds=0.1)
    assert json.loads(json.dumps(as_json(resumed.search))) == stored
    assert load_recipe(resumed.run.folder / "recipe.yaml") == trained
    assert (folder / "report.html").is_file()


def test_ranking_and_folds_share_the_features(squares, timm_checkpoint, monkeypatch):
    inspected, runner = inspect_data(str(squares)), trials.TrialRunner(squares, PartialState())
    loader, models = runner.loader, [str(timm_checkpoint), str(timm_checkpoint) + "/."]
    ranked = search_auto._rank(inspected, runner, models, None, None)
    assert sorted(ranked) == sorted(models)

    def refuse(*arguments, **options):
        raise AssertionError("computed again")

    monkeypatch.setattr(writer.PrefixWriter, "_write", refuse)
    recipe = contenders.features_recipe(inspected, models[0])
    judged = frozen.judge_features(recipe, parts.choose_parts(30), loader, has_time=lambda results: True)
    assert len(judged) == 5
    cut = frozen.judge_features(
        recipe, parts.choose_parts(30), loader, has_time=lambda results: len(results) < 2
    )
    assert list(cut) == list(judged)[:2]
    asked = []

    def refuse_to_begin(*sizes):
        asked.append(sizes)
        return False

    options = {"can_begin": refuse_to_begin, "has_time": lambda results: True}
    assert frozen.judge_features(recipe, parts.choose_parts(30), loader, **options) == {}
    ((examples, milliseconds),) = asked
    assert examples == len(frozen.whole_pool(recipe, loader).train) and milliseconds > 0


def test_features_without_a_choice_of_poolings_are_judged_with_any_head(squares, timm_checkpoint):
    plain = contenders.features_recipe(inspect_data(str(squares)), str(timm_checkpoint))
    own = plain.model_copy(
        update={"model": plain.model.model_copy(update={"head": plain.model.head.with_explicit_pooling()})}
    )
    loader = trials.TrialRunner(squares, PartialState()).loader
    first, second = (
        frozen.judge_features(recipe, parts.choose_parts(30)[:1], loader, has_time=lambda results: True)
        for recipe in (plain, own)
    )
    scores = [next(iter(results.values())).examples.scores for results in (first, second)]
    assert np.array_equal(*scores)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"quality": "perfect"}, "--quality must be fast, good, best. Got 'perfect'"),
        ({"max_trials": None}, "Set --time or --trials"),
        ({"resume": True}, "must contain an automatic search"),
        ({"max_trials": None, "max_seconds": 1e-9, "models": ["nowhere/at-all"]}, "nowhere/at-all"),
    ],
)
def test_bad_options_are_refused(squares, timm_checkpoint, tmp_path, options, message):
    with pytest.raises(InputError) as caught:
        search(squares, timm_checkpoint, tmp_path / "run", **options)
    assert message in str(caught.value)


def test_a_folder_with_another_search_is_refused(squares, timm_checkpoint, found):
    with pytest.raises(InputError, match="must be empty or not exist"):
        search(squares, timm_checkpoint, found.run.folder)
    with pytest.raises(InputError, match="must contain the same search"):
        search(squares, timm_checkpoint, found.run.folder, resume=True, quality="best")


def test_the_command_prints_trials_and_result(squares, timm_checkpoint, tmp_path):
    folder = tmp_path / "run"
    words = ["--trials", "2", "--model", timm_checkpoint, "--output-dir", folder]
    done = forked_cli("auto", squares, *words)
    assert done.returncode == 0, done.stderr
    assert 'strategy="frozen features"' in done.stdout
    assert "Expected accuracy on the test split:" in done.stdout
    assert "Test: accuracy" in done.stdout
    assert (folder / "leaderboard.csv").is_file() and (folder / "report.html").is_file()
