"""Conformance of every registered task with every compatible label type: one suite for all.

A new modality, task or label type is tested here automatically. Each pair of a task and a label type is
run once; tests that do not depend on the label type run with the first type only.
"""

import json
import math
import re
from functools import partial
from pathlib import Path

import pytest
import torch
import transformers
import yaml
from launching import fork_doctor_workers, spread
from made_up_data import make_case
from run_helpers import Record, Stop, assert_equal_runs, changed, interrupt, quick_run, weights_of
from test_recipe_shipped import complaints

from hf_finetune.data.recipe_data import load_data
from hf_finetune.doctor.check_suite import check_suites, run_check
from hf_finetune.errors import InputError
from hf_finetune.evaluation.evaluate_run import evaluate
from hf_finetune.evaluation.predict import predict
from hf_finetune.evaluation.predictions import read_predictions
from hf_finetune.publishing.export import export
from hf_finetune.recipe.load import dump_recipe, json_schema, parse_recipe
from hf_finetune.report.page import write_report
from hf_finetune.runs.prepare import plan_stages
from hf_finetune.runs.preview import preview
from hf_finetune.search import parts
from hf_finetune.search.auto import auto
from hf_finetune.search.choose import choose_checkpoint
from hf_finetune.search.draft_recipe import draft_recipe
from hf_finetune.search.inspect_data import inspect_data
from hf_finetune.search.space import read_space
from hf_finetune.search.tune import tune
from hf_finetune.targets import TARGETS
from hf_finetune.tasks import TASKS

PAIRS = [
    (task, target) for task in TASKS.values() for target in TARGETS.values() if task.accepts(target.name)
]
WITHOUT_GRADIENT = re.compile(r"\bk(ey|_proj)\.bias$")
"""Biases that attention does not depend on: their gradients are rounding errors."""
STATISTICS = re.compile(r"\.(running_\w+|num_batches_tracked)$")


def first_target(task):
    """Return the first label type of a task."""
    return next(target for target in TARGETS.values() if task.accepts(target.name))


class Runs:
    """Runs of the cases, each made on first use."""

    def __init__(self, factory):
        self.factory, self.cases, self.runs = factory, {}, {}

    def case(self, task, target=None):
        """Return a case with its data on disk; by default with the first label type of the task."""
        target = target or first_target(task)
        key = (task.name, target.name)
        if key not in self.cases:
            self.cases[key] = make_case(self.factory.mktemp("case"), task, target)
        return self.cases[key]

    def run(self, task, target=None):
        """Return a case, its finished run, and a record of the changes of each stage."""
        target = target or first_target(task)
        key = (task.name, target.name)
        if key not in self.runs:
            record = Record()
            folder = self.factory.mktemp("run") / "run"
            result = quick_run(self.case(task, target).recipe, folder, callbacks=[record])
            self.runs[key] = self.case(task, target), result, record
        return self.runs[key]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return Runs(tmp_path_factory)


each_task = pytest.mark.parametrize("task", TASKS.values(), ids=list(TASKS))
each_pair = pytest.mark.parametrize(
    ("task", "target"), PAIRS, ids=[f"{task.name}-{target.name}" for task, target in PAIRS]
)

# --- Recipe and plan --------------------------------------------------------------------------------------------


@each_pair
def test_the_schema_accepts_the_recipe(runs, task, target):
    recipe = runs.case(task, target).recipe
    content, schema = recipe.model_dump(mode="json"), json_schema()
    assert [*complaints(content, schema, schema)] == []
    assert parse_recipe(content) == recipe
    assert f"task: {task.name}" in dump_recipe(recipe)


@each_pair
def test_a_stage_trains_exactly_what_it_declares(runs, task, target):
    case, _, record = runs.run(task, target)
    stages = plan_stages(case.recipe).plan.stages
    assert [stage.name for stage in stages] == ["head", "all"]
    for index, stage in enumerate(stages):
        moved, trainable = changed(record.before[index], record.after[index]), set(stage.trainable)
        statistics = {name for name in moved - trainable if STATISTICS.search(name)}
        after = record.after[index]
        tied = {
            name
            for name in moved - statistics - trainable
            if any(torch.equal(after[name], after[other]) for other in trainable)
        }
        assert moved - statistics - tied <= trainable
        assert [name for name in trainable - moved if not WITHOUT_GRADIENT.search(name)] == []
        moving = {name.rpartition(".")[0] for name in trainable}
        assert {name.rpartition(".")[0] for name in statistics} <= moving
        assert [names for names, _, _ in record.groups[index]] == [
            list(group.parameters) for group in stage.groups
        ]
    assert changed(record.after[0], record.before[1]) == set()


@each_pair
def test_a_recipe_is_written_for_its_data(runs, task, target):
    case = runs.case(task, target)
    inspected = inspect_data(case.recipe.data.path, tasks=[task.name])
    content = yaml.safe_load(draft_recipe(inspected, str(case.recipe.model.path)))
    content["data"]["columns"] = case.recipe.data.columns.model_dump(
        mode="json"
    )  # separators are not guessed
    content["data"]["target"] = target.name
    recipe = parse_recipe(content)
    assert recipe.task == task.name
    assert recipe.metrics == (task.draft_metrics or TARGETS[inspected.data.target].default_metrics)
    assert load_data(recipe).target == target.name
    labels = inspected.data.train["label"][:]
    described = TARGETS[inspected.data.target].describe_labels(labels, inspected.data.label_names)
    assert re.search(r"\d", described)


@each_task
def test_its_checkpoints_are_ranked(runs, task):
    case = runs.case(task)
    inspected = inspect_data(case.recipe.data.path, tasks=[task.name])

    def recipe_for(model):
        return parse_recipe(yaml.safe_load(draft_recipe(inspected, model)))

    models = [str(case.recipe.model.path)]
    if first_target(task).linear_solver is None:
        with pytest.raises(InputError, match="choose does not support"):
            choose_checkpoint(models, recipe_for, inspected.data)
        return
    (entry,) = choose_checkpoint(models, recipe_for, inspected.data).ranked
    assert entry.milliseconds > 0 and entry.input_size
    assert math.isfinite(entry.value) and math.isfinite(entry.log_me)


@each_pair
def test_its_recipes_are_tuned_on_held_out_folds(runs, task, target, tmp_path, monkeypatch):
    monkeypatch.setattr(parts, "MIN_PREDICTIONS", 1)
    monkeypatch.setattr(parts, "FOLDS", 2)
    case = runs.case(task, target)
    space = read_space(case.recipe, ["stages.0.lr=0.01,0.02"])
    result = tune(space, tmp_path / "search", max_trials=1)
    (trial,) = result.trials
    assert len(trial.results) == 2 and trial.failure == ""
    assert math.isfinite(result.selection.expected)


@each_task
def test_a_model_is_found_without_choices(runs, task, tmp_path, monkeypatch):
    monkeypatch.setattr(parts, "MIN_PREDICTIONS", 1)
    monkeypatch.setattr(parts, "FOLDS", 2)
    case = runs.case(task)
    models = [str(case.recipe.model.path)]
    search = partial(
        auto, case.recipe.data.path, tmp_path / "run", max_trials=1, models=models, task=task.name
    )
    if first_target(task).linear_solver is None or not task.has_label_head:
        with pytest.raises(InputError, match="auto does not support"):
            search()
        return
    result = search()
    assert [trial.fields["strategy"] for trial in result.search.trials] == ["frozen features"]
    assert result.run.metrics["task"] == task.name


# --- Files of a run ------------------------------------------------------------------------------------------


@each_pair
def test_plain_transformers_loads_the_model(runs, task, target):
    case, result, record = runs.run(task, target)
    model, info = task.auto_class.from_pretrained(result.folder / "model", output_loading_info=True)
    assert type(model).__module__.startswith("transformers.")
    assert not any(info.values())
    assert type(model).__name__.endswith(task.suffixes)
    assert changed(model.state_dict(), record.after[-1]) == set()
    assert model.config.problem_type == target.problem_type
    if target.is_vector:
        assert_the_code_of_the_card_forecasts(result, task, case.inputs[0])
        return
    pipe = transformers.pipeline(task.pipeline_name, model=str(result.folder / "model"))
    modality, example = task.modality, case.inputs[0]
    cells = {**case.cells, modality.main_column: Path(example) if modality.opens_files else example}
    answer = pipe(modality.read_example(cells)[0])
    if target.is_text:
        assert answer["text"].strip() == next(iter(predict(result.folder, [example]))).label
        return
    answer = answer if isinstance(answer, list) else [answer]
    # a fill-mask pipeline also lists special tokens, whose probability is 0
    shown = [entry for entry in answer if target.is_numeric or entry["score"] > 0]
    names = {entry.get("label", entry.get("token_str")) for entry in shown}
    assert names and names <= set(model.config.id2label.values())


def assert_the_code_of_the_card_forecasts(result, task, example):
    """Check that the code of the model card returns the forecast that ``predict`` returns."""
    folder = result.folder / "model"
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    values = {}
    exec(task.usage_code(str(folder), config, str(example)), values)
    forecast = next(iter(predict(result.folder, [example]))).label
    assert values["forecast"].flatten().tolist() == pytest.approx(forecast)


@each_pair
def test_the_model_is_evaluated_again_to_the_same_numbers(runs, task, target):
    _, result, _ = runs.run(task, target)
    again = evaluate(result.folder)
    assert again.target == target.name
    expected = {name: value for name, value in result.metrics["test"].items() if name in again.metrics}
    assert expected and again.metrics == pytest.approx(expected)
    assert set(target.default_metrics) <= set(expected)
    table = read_predictions(result.folder / "predictions.parquet")
    assert (table.target, len(table.ids)) == (target.name, len(again.ids))


@each_pair
def test_it_predicts(runs, task, target):
    case, result, _ = runs.run(task, target)
    predictions = list(predict(result.folder, case.predicted))
    assert [prediction.error for prediction in predictions] == [None] * 5
    labels = [prediction.label for prediction in predictions]
    if target.has_classes:
        flat = {name for label in labels for name in (label if isinstance(label, list) else [label])}
        assert flat <= set(case.names)
        assert all(set(prediction.scores) == set(case.names) for prediction in predictions)
    elif target.is_numeric:
        assert all(isinstance(label, float) for label in labels)
    elif target.is_vector:
        assert all(len(label) == 2 and math.isfinite(sum(label)) for label in labels)
    else:
        assert all(isinstance(label, str) for label in labels)


@each_pair
def test_it_is_reported(runs, task, target):
    case, result, _ = runs.run(task, target)
    page = write_report(result.folder).read_text(encoding="utf-8")
    assert task.name in page
    assert target.is_vector or all(name in page for name in case.names)


@each_pair
def test_it_has_a_model_card(runs, task, target):
    _, result, _ = runs.run(task, target)
    card = (result.folder / "model" / "README.md").read_text(encoding="utf-8")
    assert f"pipeline_tag: {task.pipeline_name}" in card
    assert "from transformers import" in card
    assert target.is_vector or f'pipeline("{task.pipeline_name}"' in card
    assert task.modality.example_code(pair=False) in card


# --- Independent of the label type ---------------------------------------------------------------


@each_task
def test_an_interrupted_run_is_resumed_bit_for_bit(tmp_path, runs, task):
    case, straight, _ = runs.run(task)
    folder = tmp_path / "run"
    interrupt(case.recipe, folder, Stop("all", 8, "begin"))
    quick_run(case.recipe, folder, resume=True)
    assert_equal_runs(straight.folder, folder)


@each_task
def test_two_processes_train_it(tmp_path, runs, task):
    case, straight, _ = runs.run(task)
    done = spread(tmp_path, case.recipe, 2)
    assert done.code == 0, done.err[-4000:]
    for stage in ("01-head", "02-all"):
        first, second = (done.weights(stage, rank) for rank in range(2))
        assert changed(first, second) == set()
    assert weights_of(tmp_path / "run").keys() == weights_of(straight.folder).keys()
    assert done.metrics()["test"].keys() == straight.metrics["test"].keys()


@each_task
def test_outputs_of_frozen_layers_are_cached(tmp_path, runs, task):
    case, straight, _ = runs.run(task)
    content = case.recipe.model_dump(mode="json")
    cached = quick_run(parse_recipe({**content, "speed": {"prefix_cache": {"views": 1}}}), tmp_path / "run")
    assert cached.metrics["stages"][0]["prefix_cache"]["used"]
    assert cached.metrics["test"].keys() == straight.metrics["test"].keys()


@each_task
def test_a_preview_shows_it(tmp_path, runs, task):
    path = tmp_path / f"preview{task.modality.preview_suffixes[0]}"
    assert preview(runs.case(task).recipe, path, examples=2, views=2) == path
    assert path.stat().st_size > 100


@each_task
def test_the_doctor_passes(tmp_path, runs, task, monkeypatch):
    if task is not next(iter(TASKS.values())):  # the first one starts real processes
        fork_doctor_workers(monkeypatch)
    (suite,) = check_suites(runs.case(task).recipe, tmp_path)
    results = [run_check(check, tmp_path) for check in suite.checks]
    assert [result for result in results if result.state == "fail"] == []
    assert [result.name for result in results if result.state == "pass"]


@each_task
@pytest.mark.parametrize("format", ["torch_export", "onnx"])
def test_it_is_exported(runs, task, format):
    _, result, _ = runs.run(task)
    if first_target(task).is_text:
        with pytest.raises(InputError, match="A model that writes texts is not exported"):
            export(result.folder, format=format)
        return
    exported = export(result.folder, format=format)
    assert json.loads((exported.folder / "export.json").read_text(encoding="utf-8"))["task"] == task.name
