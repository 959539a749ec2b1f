"""Runs with a time limit: not reached, reached, too short, interrupted, and cross-validated."""

import json
import os
import signal
from pathlib import Path
from types import SimpleNamespace

import pytest
from run_helpers import (
    NO_PROBE,
    Stop,
    StopAtStep,
    assert_equal_runs,
    changed,
    interrupt,
    metrics_of,
    quick_run,
    refusal,
    tiny_text_recipe,
    weights_of,
    with_stages,
)
from transformers import TrainerCallback

from hf_finetune.planning.time_limit import StageTimes
from hf_finetune.recipe.load import parse_recipe
from hf_finetune.runs.clock import RunClock
from hf_finetune.runs.planner import plan
from hf_finetune.runs.run_costs import RunCosts


def limited(recipe, time="10h", **changes):
    return parse_recipe({**recipe.model_dump(mode="json"), "limit": time, **changes})


def manifest_of(folder):
    return json.loads((folder / "manifest.json").read_text(encoding="utf-8"))


@pytest.fixture
def five_steps(monkeypatch):
    """Let five steps of each stage fit, without a rehearsal."""
    times = StageTimes(0.0, 0.0, 0.0, 0.0)
    monkeypatch.setattr("hf_finetune.training.stage.rehearse", lambda *args, **options: times)
    monkeypatch.setattr("hf_finetune.training.stage_limit.steps_that_fit", lambda *args: 5)


@pytest.mark.parametrize("changes", [{}, {"regularize": {"ema": 0.9}}, {"carry_optimizer": True}])
def test_a_run_whose_limit_is_not_reached_ends_as_without_one(tmp_path, text_recipe, changes):
    recipe = with_stages(text_recipe(), {}, changes)
    quick_run(recipe, tmp_path / "free")
    quick_run(limited(recipe), tmp_path / "limited")
    assert_equal_runs(tmp_path / "free", tmp_path / "limited")
    records = [manifest_of(tmp_path / name)["determinism"] for name in ("free", "limited")]
    assert records[0] == records[1]
    assert RunClock(tmp_path / "limited").earlier > 0


def test_a_run_with_a_prefix_cache_ends_as_without_a_limit(tmp_path, image_recipe):
    """The rehearsal computes the outputs of the frozen layers, and the stage reads them."""
    common = {"epochs": 4.0}
    recipe = with_stages(image_recipe(speed={"prefix_cache": 2}), common, common)
    quick_run(recipe, tmp_path / "free")
    quick_run(limited(recipe), tmp_path / "limited")
    assert all(stage["prefix_cache"]["used"] for stage in metrics_of(tmp_path / "limited")["stages"])
    assert_equal_runs(tmp_path / "free", tmp_path / "limited")


def test_a_run_with_a_teacher_ends_as_without_a_limit(tmp_path, text_recipe, text_run):
    recipe = with_stages(text_recipe(), {}, {"teacher": str(text_run[1].folder)})
    quick_run(recipe, tmp_path / "free")
    quick_run(limited(recipe), tmp_path / "limited")
    assert_equal_runs(tmp_path / "free", tmp_path / "limited")


def test_stages_that_are_cut_equal_shorter_ones(tmp_path, text_recipe, five_steps):
    """The weights are those of a recipe with five steps in each stage."""
    recipe = text_recipe()
    short = with_stages(recipe, *[{"epochs": None, "max_steps": 5}] * 2)
    quick_run(short, tmp_path / "short")
    quick_run(limited(recipe), tmp_path / "cut")
    stages = metrics_of(tmp_path / "cut")["stages"]
    assert [stage.pop("limit") for stage in stages] == [
        {"planned_steps": 8, "fitting_steps": 5, "stopped": False}
    ] * 2
    (tmp_path / "cut" / "metrics.json").write_text(
        json.dumps({**metrics_of(tmp_path / "cut"), "stages": stages}), encoding="utf-8"
    )
    assert_equal_runs(tmp_path / "short", tmp_path / "cut")
    record = manifest_of(tmp_path / "cut")["determinism"]
    assert record["bit_for_bit"] is False
    assert record["obstacles"] == [
        f"the number of steps of stage {name} is chosen by a benchmark" for name in ("head", "all")
    ]
    assert "5 of 8 steps fit" in (tmp_path / "cut" / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("stop", [("head", 3, "begin"), ("all", 4, "save"), ("all", 2, "ctrl-c")])
def test_an_interrupted_run_with_a_limit_ends_the_same(tmp_path, text_recipe, five_steps, monkeypatch, stop):
    recipe = limited(text_recipe())
    quick_run(recipe, tmp_path / "whole")
    interrupt(recipe, tmp_path / "run", Stop(*stop))
    spent = RunClock(tmp_path / "run").earlier
    assert spent > 0
    if stop[0] == "all":  # the number of steps is recorded
        monkeypatch.setattr("hf_finetune.training.stage_limit.steps_that_fit", None)
    quick_run(recipe, tmp_path / "run", resume=True)
    assert RunClock(tmp_path / "run").earlier > spent
    assert_equal_runs(tmp_path / "whole", tmp_path / "run")


class Kill(TrainerCallback):
    """Kill the process at the start of a step of the last stage."""

    def on_step_begin(self, args, state, control, **kwargs):
        if Path(args.output_dir).name.endswith("all") and state.global_step == 2:
            os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_run_with_a_limit_ends_the_same_and_counts_its_time(tmp_path, text_recipe, five_steps):
    recipe = limited(text_recipe())
    quick_run(recipe, tmp_path / "whole")
    child = os.fork()
    if child == 0:
        quick_run(recipe, tmp_path / "run", callbacks=[Kill()])
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    spent = RunClock(tmp_path / "run").earlier
    assert spent > 0
    quick_run(recipe, tmp_path / "run", resume=True)
    assert RunClock(tmp_path / "run").earlier > spent
    assert_equal_runs(tmp_path / "whole", tmp_path / "run")


def test_a_run_that_is_out_of_time_keeps_its_last_good_evaluation(tmp_path, text_recipe, monkeypatch):
    """Half of the planned time is lost by a kill; the other stage gets its first steps all the same."""
    times = StageTimes(0.0, 1.0, 0.0, 0.0)
    monkeypatch.setattr("hf_finetune.training.stage.rehearse", lambda *args, **options: times)
    costs = RunCosts((8.0, 8.0), (2.0, 2.0), finish=4.0)
    monkeypatch.setattr("hf_finetune.runs.time_limit.estimate_costs", lambda *args: costs)
    now = SimpleNamespace(seconds=0.0)
    monkeypatch.setattr(RunClock, "spent", lambda self: self.earlier + now.seconds)

    class Slow(StopAtStep):
        def on_step_end(self, args, state, control, **kwargs):
            now.seconds += 3.0

    recipe = limited(text_recipe(), "28s")
    result = quick_run(recipe, tmp_path / "run", callbacks=[Slow()])
    stages = result.metrics["stages"]
    assert [stage["limit"] for stage in stages] == [
        {"planned_steps": 8, "fitting_steps": 8, "stopped": True}
    ] * 2
    assert [stage["steps"] for stage in stages] == [4, 4]
    assert all(stage["best_step"] in (0, stage["steps"]) for stage in stages)
    assert result.metrics["test"]["accuracy"] >= 0
    assert (result.folder / "model").is_dir()


def test_a_limit_that_is_too_short_is_refused_before_anything_is_written(tmp_path, text_recipe, monkeypatch):
    costs = RunCosts((8.0, 8.0), (2.0, 3.0), finish=4.0)
    monkeypatch.setattr("hf_finetune.runs.time_limit.estimate_costs", lambda *args: costs)
    monkeypatch.setattr(RunClock, "spent", lambda self: 2.0)
    assert refusal(lambda: quick_run(limited(text_recipe(), "10s"), tmp_path / "run")) == (
        "limit.time must be at least about 11s for this run. Got 10s. The first steps of the stages, with their "
        "evaluations, take about 5 s, loading and the evaluation of the model about 6 s."
    )
    recipe = limited(text_recipe(), "30s", evaluation={**NO_PROBE, "folds": 2})
    assert refusal(lambda: quick_run(recipe, tmp_path / "run")) == (
        "limit.time must be at least about 33s for this run. Got 30s. The first steps of the stages, with their "
        "evaluations, take about 5 s, loading and the evaluation of the model about 6 s for each of 3 trainings."
    )
    assert list(tmp_path.iterdir()) == []


def test_a_short_limit_is_refused_by_measured_times(tmp_path, text_recipe):
    text = refusal(lambda: quick_run(limited(text_recipe(), 0.5), tmp_path / "run"))
    assert text.startswith("limit.time must be at least about ")
    assert list(tmp_path.iterdir()) == []


def test_each_fold_has_an_equal_part_of_the_limit(tmp_path, text_recipe):
    recipe = limited(text_recipe(), "3h", evaluation={**NO_PROBE, "folds": 2})
    quick_run(recipe, tmp_path / "run")
    for number in (1, 2):
        fold = tmp_path / "run" / "folds" / f"{number}-of-2"
        assert manifest_of(fold)["recipe"]["limit"] == {"time": "1h"}
        assert RunClock(fold).earlier > 0


def test_a_linear_probe_that_takes_more_than_a_tenth_of_the_limit_is_left_out(
    tmp_path, text_recipe, monkeypatch, caplog
):
    caplog.set_level("INFO", "hf_finetune")
    costs = RunCosts((1.0, 1.0), (1.0, 1.0), finish=4.0, probe=30.0)
    monkeypatch.setattr("hf_finetune.runs.time_limit.estimate_costs", lambda *args: costs)
    result = quick_run(limited(text_recipe(evaluation={}), "4m"), tmp_path / "run")
    assert "linear_probe" not in result.metrics["baselines"]
    assert "No linear probe: it would take about 30 s, more than a tenth of the time limit." in caplog.text
    recipe = manifest_of(tmp_path / "run")["recipe"]
    assert (recipe["evaluation"]["linear_probe"], recipe["limit"]) == (10_000, {"time": "4m"})


def test_a_plan_says_what_its_limit_means(text_recipe):
    *_, note = plan(limited(text_recipe(), "5m")).notes
    assert note.startswith(
        "limit.time: 5m for the whole run, with its evaluation. The stages would take up to "
    )


def test_the_limit_of_a_resumed_run_can_be_changed(tmp_path, reviews, bert_checkpoint, five_steps):
    recipe = tiny_text_recipe(reviews, bert_checkpoint)
    interrupt(recipe, tmp_path / "run", Stop("head", 4, "save"))
    text = refusal(lambda: quick_run(limited(recipe), tmp_path / "run", resume=True))
    assert text.startswith("The recipe has changed since the run started: limit: null -> {'time': '10h'}.")
    quick_run(limited(recipe), tmp_path / "run", resume=True, allow_changes=True)
    stages = metrics_of(tmp_path / "run")["stages"]
    assert [stage["steps"] for stage in stages] == [8, 5]  # the first stage has begun without a limit


@pytest.mark.parametrize(
    "fields",
    [{"strategy": "features"}, {"strategy": {"name": "gradual_unfreeze", "epochs": 1, "lr": 0.001}}],
)
def test_a_strategy_with_a_limit_that_is_not_reached_ends_as_without_one(tmp_path, text_recipe, fields):
    content = {**text_recipe().model_dump(mode="json"), "stages": None, **fields}
    quick_run(parse_recipe(content), tmp_path / "free")
    quick_run(limited(parse_recipe(content)), tmp_path / "limited")
    assert changed(*(weights_of(tmp_path / name) for name in ("free", "limited"))) == set()
