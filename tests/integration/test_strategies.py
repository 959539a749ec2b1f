"""Settings of several stages: a strategy, rates and schedules by group, and a carried optimizer."""

import io
import json

import pytest
import torch
from rich.console import Console
from run_helpers import (
    NO_PROBE,
    Stop,
    assert_equal_runs,
    changed,
    first_epoch_is_best,
    interrupt,
    log_of,
    quick_run,
    refusal,
    weights_of,
)
from transformers import TrainerCallback

from hf_finetune import load_recipe, plan
from hf_finetune.cli.plan_table import print_plan
from hf_finetune.recipe.load import dump_recipe, parse_recipe
from hf_finetune.recipe.yaml_text import read_yaml
from hf_finetune.runs.estimates import describe_prefix_caches

COMMON = {"best": None, "epochs": 2.0, "batch_size": 4, "accumulation": 2}


@pytest.fixture(scope="module")
def content(bert_checkpoint, reviews):
    return {
        "task": "text-classification",
        "model": str(bert_checkpoint),
        "data": {"path": str(reviews), "split": {"validation": 0.15, "test": 0.15}},
        "evaluation": NO_PROBE,
    }


@pytest.fixture(scope="module")
def strategy(content):
    fields = {"name": "gradual_unfreeze", **COMMON, "epochs": 1.0, "carry_optimizer": True}
    rates = {
        "lr": {"head": 0.05, "backbone": [0.001, 0.01]},
        "schedule": {"head": "linear", "backbone": "cosine"},
    }
    return parse_recipe({**content, "strategy": {**fields, **rates, "warmup": 0.25}})


@pytest.fixture(scope="module")
def written(tmp_path_factory, strategy):
    return quick_run(strategy, tmp_path_factory.mktemp("strategy") / "run").folder


# --- A strategy -------------------------------------------------------------------------------------------------


def test_the_plan_shows_the_stages_that_the_strategy_writes(strategy):
    report = plan(strategy)
    trains = ["head", "last:1", "last:2", "all"]
    assert [stage.train for stage in report.plan.stages] == trains
    assert [stage.train for stage in report.recipe.stages] == trains
    assert report.recipe.strategy is None
    stream = io.StringIO()
    print_plan(Console(file=stream, width=200), strategy, report, describe_prefix_caches(report))
    text = stream.getvalue()
    assert "The strategy gradual_unfreeze expands to these stages:" in text
    shown, _ = read_yaml(text[text.index("\nstages:\n") :].partition("\n\n")[0], "the plan")
    assert [stage["train"] for stage in shown["stages"]] == trains
    again = {**strategy.model_dump(mode="json", exclude={"strategy", "stages"}), **shown}
    assert parse_recipe(again).stages == report.recipe.stages
    assert "Stage 4, all: train all" in text
    assert "restores the optimizer state of 20 tensors" in text
    rates = [line for line in text.splitlines() if line.startswith("learning rate of ")]
    assert rates[0] == "learning rate of head: linear, over the steps: _#+:", (
        "a quarter of its 4 steps is warmup"
    )
    assert [line.partition(": ")[2] for line in rates[-2:]] == [
        "linear, over the steps: _#+:",
        "cosine, over the steps: _#+:",
    ]


def test_a_run_writes_the_stages_out_and_they_run_again_to_the_same_result(written, tmp_path, strategy):
    recipe = load_recipe(written / "recipe.yaml")
    assert recipe.strategy is None
    assert dump_recipe(recipe) == dump_recipe(plan(strategy).recipe)
    names = ["01-head", "02-last-1", "03-last-2", "04-all"]
    assert sorted(path.name for path in (written / "stages").iterdir()) == names
    quick_run(recipe, tmp_path / "run")
    assert_same(written, tmp_path / "run", names)


@pytest.mark.parametrize("stop", [("head", 1, "ctrl-c"), ("last-1", 2, "begin"), ("last-2", 4, "save")])
@pytest.mark.parametrize("form", ["as given", "as written out"])
def test_an_interrupted_strategy_is_resumed_by_either_form_of_its_recipe(
    written, tmp_path, strategy, stop, form
):
    interrupt(strategy, tmp_path / "run", Stop(*stop))
    recipe = strategy if form == "as given" else load_recipe(tmp_path / "run" / "recipe.yaml")
    quick_run(recipe, tmp_path / "run", resume=True)
    assert_same(written, tmp_path / "run", ["01-head", "02-last-1", "03-last-2", "04-all"])


def assert_same(one, other, stages):
    assert changed(weights_of(one), weights_of(other)) == set()
    assert [log_of(one, stage) for stage in stages] == [log_of(other, stage) for stage in stages]


def test_the_log_has_the_rate_of_every_group(written):
    steps = [entry for entry in log_of(written, "04-all") if "loss" in entry]
    groups = [layers for layers, _ in steps[0]["learning_rates"]]
    assert groups[0] == "head" and groups[-1] == "input"
    rates = {layers: [dict(entry["learning_rates"])[layers] for entry in steps] for layers in groups}
    # of 4 steps the first is warmup
    assert rates["head"] == pytest.approx([0.0, 0.05, 0.05 * 2 / 3, 0.05 / 3])
    assert rates["input"] == pytest.approx([0.0, 0.001, 0.00075, 0.00025])


def test_an_error_in_a_strategy_is_reported_once(tmp_path, content):
    recipe = parse_recipe(
        {**content, "strategy": {"name": "gradual_unfreeze", "optimizer": "adamww", "best": "rmse"}}
    )
    lines = refusal(lambda: quick_run(recipe, tmp_path / "run")).splitlines()
    assert [line.split(" must ")[0] for line in lines] == ["strategy.optimizer", "strategy.best.metric"]
    assert not (tmp_path / "run").exists()


# --- A carried optimizer ----------------------------------------------------------------------------------------


class Moments(TrainerCallback):
    """Record the optimizer's state before the first step of each stage, and after each step."""

    def __init__(self):
        self.first, self.steps = [], []

    def on_train_begin(self, args, state, control, **kwargs):
        self.first.append(None)
        self.steps.append({})

    def on_pre_optimizer_step(self, args, state, control, **kwargs):
        if self.first[-1] is None:
            self.first[-1] = moments(kwargs)

    def on_step_end(self, args, state, control, **kwargs):
        self.steps[-1][state.global_step] = moments(kwargs)


def moments(kwargs):
    names = {id(parameter): name for name, parameter in kwargs["model"].named_parameters()}
    return {
        (names[id(parameter)], key): value.clone()
        for parameter, values in kwargs["optimizer"].state.items()
        for key, value in values.items()
    }


def stages(content, *changes):
    base = [{"name": "head", "train": "last:1", "lr": 0.01}, {"name": "all", "train": "all", "lr": 0.005}]
    written = [{**COMMON, **stage, **change} for stage, change in zip(base, changes, strict=True)]
    return parse_recipe({**content, "stages": written})


@pytest.mark.parametrize("best", ["last", "earlier"])
def test_the_moments_belong_to_the_weights_that_are_kept(tmp_path, content, best, monkeypatch):
    """Also after an earlier checkpoint was the best, of which the Trainer restores only the weights."""
    if best == "earlier":
        monkeypatch.setattr("hf_finetune.training.trainer.is_better", first_epoch_is_best)
    first = {"best": "accuracy"} if best == "earlier" else {"best": None}
    recipe, watch = stages(content, first, {"carry_optimizer": True}), Moments()
    result = quick_run(recipe, tmp_path / "run", callbacks=[watch])
    entry = result.metrics["stages"][0]
    assert entry["best_step"] == (4 if best == "earlier" else None)
    kept = watch.steps[0][entry["best_step"] or entry["steps"]]
    assert watch.first[1].keys() == kept.keys()
    assert {name for name, _ in kept} == set(plan(recipe).plan.stages[1].carried)
    assert all(torch.equal(value, kept[key]) for key, value in watch.first[1].items())
    assert any(value.any() for (_, key), value in kept.items() if key == "exp_avg")
    steps = {float(value) for (_, key), value in watch.first[1].items() if key == "step"}
    assert steps == {float(entry["best_step"] or entry["steps"])}


def test_without_it_every_stage_begins_without_moments_and_saves_none(tmp_path, content):
    watch = Moments()
    quick_run(stages(content, {}, {}), tmp_path / "run", callbacks=[watch])
    assert watch.first == [{}, {}]
    assert not list((tmp_path / "run").glob("stages/*/optimizer.pt"))


@pytest.mark.parametrize(
    "stop",
    [
        ("head", 6, "ctrl-c"),
        ("head", 8, "save"),
        ("all", 0, "begin"),
        ("all", 4, "save"),
        ("all", 6, "ctrl-c"),
    ],
)
def test_an_interrupted_run_with_a_carried_optimizer_ends_the_same(tmp_path, carried_run, stop):
    recipe, folder = carried_run
    interrupt(recipe, tmp_path / "run", Stop(*stop))
    quick_run(recipe, tmp_path / "run", resume=True)
    assert_equal_runs(folder, tmp_path / "run")


@pytest.fixture(scope="module")
def carried_run(tmp_path_factory, content):
    recipe = stages(content, {}, {"carry_optimizer": True})
    return recipe, quick_run(recipe, tmp_path_factory.mktemp("carried") / "run").folder


def test_carrying_makes_a_difference(tmp_path, content, carried_run):
    other = quick_run(stages(content, {}, {}), tmp_path / "run").folder
    assert changed(weights_of(carried_run[1]), weights_of(other))
    files = [
        sorted(path.name for path in folder.glob("stages/*/optimizer.pt"))
        for folder in (carried_run[1], other)
    ]
    assert files == [["optimizer.pt"], []]
    assert json.loads((other / "metrics.json").read_text())["stages"][0]["name"] == "head"


def test_an_optimizer_in_pieces_is_not_carried(tmp_path, content, monkeypatch):
    for name, value in {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}.items():
        monkeypatch.setenv(name, value)
    recipe = stages(content, {}, {"carry_optimizer": True})
    assert refusal(lambda: quick_run(recipe, tmp_path / "run")) == (
        "stages[1].carry_optimizer is not supported with FSDP or DeepSpeed, which shard the optimizer state."
    )
