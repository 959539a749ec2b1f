"""Runs of several tasks: saved models, trained parameters, resuming, and commands for one task only."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from multitask_data import image_recipe, squares_by_shade, text_recipe, texts_by_length
from plain_process import run_plain
from run_helpers import (
    Record,
    Stop,
    changed,
    interrupt,
    log_of,
    metrics_of,
    quick_run,
    refusal,
    with_stages,
    without_times,
)
from safetensors.torch import load_file
from transformers import AutoModelForImageClassification
from typer.testing import CliRunner

from hf_finetune.cli.app import app
from hf_finetune.doctor.check_suite import check_suites
from hf_finetune.evaluation.compare import compare_runs
from hf_finetune.evaluation.evaluate_run import evaluate
from hf_finetune.evaluation.predict import predict
from hf_finetune.evaluation.predictions import read_predictions
from hf_finetune.publishing.export import export
from hf_finetune.publishing.upload_plan import check_finished, collect_uploads
from hf_finetune.recipe.load import dump_recipe, load_recipe, parse_recipe
from hf_finetune.runs.prepare import plan_stages
from hf_finetune.runs.preview import preview

ALONE = """
import json, sys
sys.modules["hf_finetune"] = None  # an import of it is an error
from transformers import pipeline
found = pipeline(sys.argv[1], model=sys.argv[2], top_k=None)(json.loads(sys.argv[3]))
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def images(tmp_path_factory, squares, timm_checkpoint):
    """Return a function that makes recipes for color and shade of squares."""
    shades = squares_by_shade(squares, tmp_path_factory.mktemp("shades") / "shades.csv")
    return lambda **changes: image_recipe(squares, shades, timm_checkpoint, **changes)


@pytest.fixture(scope="module")
def texts(tmp_path_factory, reviews, bert_checkpoint):
    """Return a function that makes recipes for a class and a continuous target of texts."""
    words = texts_by_length(tmp_path_factory.mktemp("words") / "words.csv")
    return lambda **changes: text_recipe(reviews, words, bert_checkpoint, **changes)


@pytest.fixture(scope="module")
def image_run(tmp_path_factory, images):
    folder, record = tmp_path_factory.mktemp("images") / "run", Record()
    return quick_run(images(), folder, callbacks=[record]), record


@pytest.fixture(scope="module")
def text_run(tmp_path_factory, texts):
    folder, record = tmp_path_factory.mktemp("texts") / "run", Record()
    return quick_run(texts(), folder, callbacks=[record]), record


def pipeline_alone(task, model, inputs):
    """Predict with transformers alone, where hf_finetune cannot be imported."""
    done = run_plain(ALONE, task, model, json.dumps(inputs), cwd="/")
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_the_model_of_each_task_is_one_that_transformers_alone_loads(image_run, squares):
    folder = image_run[0].folder
    for task in ("colour", "shade"):
        predictions = read_predictions(folder / "tasks" / task / "predictions.parquet")
        files = [str(squares / Path(name).parent.name / Path(name).name) for name in predictions.ids]
        found = pipeline_alone("image-classification", folder / "model" / task, files)
        for row, answers in zip(predictions.scores, found, strict=True):
            scores = {answer["label"]: answer["score"] for answer in answers}
            assert scores.keys() == set(predictions.label_names)
            expected = [scores[name] for name in predictions.label_names]
            np.testing.assert_allclose(row, expected, atol=1e-5)


def test_an_exported_model_is_in_the_run_of_its_task(tmp_path, image_run):
    folder = tmp_path / "run"
    shutil.copytree(image_run[0].folder, folder)
    made = export(folder / "model" / "colour", format="torch_export")
    assert made.folder == folder / "tasks" / "colour" / "torch_export"
    assert sorted(path.name for path in (folder / "model").iterdir()) == ["colour", "shade"]


def test_text_models_of_both_tasks_load_in_plain_transformers(text_run):
    folder = text_run[0].folder
    classes = pipeline_alone("text-classification", folder / "model" / "type", ["good film"])[0]
    assert {answer["label"] for answer in classes} == {"good", "bad"}
    amount = pipeline_alone("text-classification", folder / "model" / "words", ["good film"])[0]
    assert [answer["label"] for answer in amount] == ["label"]
    [told] = predict(folder / "model" / "words", ["good film"])
    assert told.label == pytest.approx(amount[0]["score"], abs=1e-5)


def test_each_model_loads_from_its_subfolder_and_shares_the_backbone(image_run):
    folder = image_run[0].folder / "model"
    models = {
        task: AutoModelForImageClassification.from_pretrained(folder, subfolder=task).state_dict()
        for task in ("colour", "shade")
    }
    differ = {
        name for name in models["colour"] if not torch.equal(models["colour"][name], models["shade"][name])
    }
    assert differ == {"timm_model.fc.weight", "timm_model.fc.bias"}
    assert [models[task]["timm_model.fc.bias"].shape for task in models] == [(3,), (2,)]


def test_metrics_are_reported_for_each_task_and_overall(image_run):
    result = image_run[0]
    metrics = metrics_of(result.folder)
    assert metrics["task"] == "multi-task"
    assert list(metrics["tasks"]) == ["colour", "shade"]
    for task, found in metrics["tasks"].items():
        assert found["test"].keys() >= {"accuracy", "f1_macro"}
        for name, value in found["test"].items():
            assert metrics["test"][f"{task}/{name}"] == value
        assert (
            metrics["baselines"]["majority"][f"{task}/accuracy"] == found["baselines"]["majority"]["accuracy"]
        )
        assert metrics["test_interval"][f"{task}/accuracy"] == found["test_interval"]["accuracy"]
    tests = [metrics["tasks"][task]["test"]["accuracy"] for task in ("colour", "shade")]
    assert metrics["test"]["mean"] == pytest.approx(sum(tests) / 2)
    assert result.primary_metrics[0] == "mean"


def test_the_best_epoch_is_that_of_the_best_mean_errors_counted_below_0(text_run, texts):
    folder = text_run[0].folder
    for number, stage in enumerate(metrics_of(folder)["stages"], 1):
        name = f"{number:02d}-{stage['name']}"
        evaluations = [entry for entry in log_of(folder, name) if "eval_loss" in entry]
        for entry in evaluations:
            mean = (entry["eval_type/accuracy"] - entry["eval_words/rmse"]) / 2
            assert entry["eval_mean"] == pytest.approx(mean)
        best = max(evaluations, key=lambda entry: entry["eval_mean"])
        assert stage["best_step"] == best["step"]


def test_a_stage_may_choose_by_the_metric_of_one_task(tmp_path, texts):
    best = {"best": {"metric": "words/mae"}, "epochs": 3.0}
    folder = quick_run(with_stages(texts(), best, best), tmp_path / "run").folder
    for number, stage in enumerate(metrics_of(folder)["stages"], 1):
        name = f"{number:02d}-{stage['name']}"
        evaluations = [entry for entry in log_of(folder, name) if "eval_loss" in entry]
        assert len(evaluations) == 4
        assert stage["best_step"] == min(evaluations, key=lambda entry: entry["eval_words/mae"])["step"]


@pytest.mark.parametrize("kind", ["image", "text"])
def test_each_stage_changes_exactly_the_planned_parameters(kind, image_run, text_run, images, texts):
    _, record = image_run if kind == "image" else text_run
    plan = plan_stages(images() if kind == "image" else texts()).plan
    buffers = {name for name in record.before[0] if name not in plan.layout.names()}
    for index, stage in enumerate(plan.stages):
        moved = changed(record.before[index], record.after[index])
        assert moved - buffers <= set(stage.trainable)
        # attention does not depend on a key's bias: its gradient is only rounding
        assert {name for name in set(stage.trainable) - moved if "key.bias" not in name} == set()
    heads = {name for name in plan.stages[0].trainable if ".task_" in name or ".log_variance_" in name}
    assert len(heads) == (4 if kind == "image" else 6)
    assert changed(record.before[0], record.after[0]) == heads


def test_a_stage_may_train_the_head_of_one_task(tmp_path, images):
    record = Record()
    recipe = with_stages(
        images(), {"train": "/task_shade/", "name": "shade", "best": None}, {"train": "head", "name": "all"}
    )
    quick_run(recipe, tmp_path / "run", callbacks=[record])
    assert changed(record.before[0], record.after[0]) == {
        "timm_model.fc.task_shade.weight",
        "timm_model.fc.task_shade.bias",
    }


@pytest.mark.parametrize(
    ("kind", "stage", "step", "moment"),
    [
        ("image", "head", 7, "begin"),
        ("image", "all", 13, "ctrl-c"),
        ("text", "head", 3, "ctrl-c"),
        ("text", "all", 6, "save"),
        ("text", "all", 7, "begin"),
    ],
)
def test_an_interrupted_run_ends_as_one_straight_through_bit_for_bit(
    kind, stage, step, moment, tmp_path, image_run, text_run, images, texts
):
    recipe = images() if kind == "image" else texts()
    whole = (image_run if kind == "image" else text_run)[0].folder
    parts = tmp_path / "run"
    interrupt(recipe, parts, Stop(stage, step, moment))
    quick_run(recipe, parts, resume=True)
    for name in ("01-head", "02-all"):
        one, other = (load_file(folder / "stages" / name / "model.safetensors") for folder in (whole, parts))
        assert changed(one, other) == set()
        assert log_of(whole, name) == log_of(parts, name)
    assert without_times(metrics_of(whole)) == without_times(metrics_of(parts))
    for task in recipe.tasks:
        tables = [(folder / "tasks" / task / "predictions.parquet").read_bytes() for folder in (whole, parts)]
        assert tables[0] == tables[1]


def test_the_prefix_cache_does_not_change_the_results(tmp_path, images):
    """The features of each task's examples are cached, and the batches are those of any other run."""
    found = {}
    for views, kept in (("kept", {"views": 1}), ("computed", None)):
        recipe = images(data={"augment": "none"}, speed={"prefix_cache": kept})
        folder = quick_run(recipe, tmp_path / views).folder
        stage = metrics_of(folder)["stages"][0]
        assert stage["prefix_cache"]["used"] is (views == "kept")
        found[views] = load_file(folder / "stages" / "01-head" / "model.safetensors")
    assert changed(found["kept"], found["computed"]) == set()


def test_the_weights_of_an_uncertain_run_are_learnt_and_go_into_no_task(text_run):
    folder = text_run[0].folder
    weights = load_file(folder / "stages" / "02-all" / "model.safetensors")
    learnt = {name: value.item() for name, value in weights.items() if "log_variance" in name}
    assert learnt.keys() == {"classifier.log_variance_type", "classifier.log_variance_words"}
    assert all(value != 0 for value in learnt.values())
    for task in ("type", "words"):
        own = load_file(folder / "model" / task / "model.safetensors")
        assert not any("log_variance" in name or "task_" in name for name in own)


def test_the_folder_of_a_task_is_a_run_that_all_commands_accept(image_run):
    folder = image_run[0].folder
    metrics = metrics_of(folder)
    for task in ("colour", "shade"):
        expected = metrics["tasks"][task]["test"]["accuracy"]
        for place in (folder / "tasks" / task, folder / "model" / task):
            again = evaluate(place)
            assert again.metrics["accuracy"] == expected and again.changed is None
    check_finished(folder / "tasks" / "shade")
    same = compare_runs([folder / "tasks" / "shade", folder / "tasks" / "shade"])
    assert all(each.first == each.value for each in same[0].differences)


def test_what_is_published_of_a_task_is_the_recipe_of_all(image_run):
    uploads, _ = collect_uploads(image_run[0].folder / "tasks" / "shade", "me/shade")
    recipe = next(upload.source for upload in uploads if upload.name == "recipe.yaml").decode()
    assert "task: multi-task" in recipe
    assert "path: ./squares" in recipe
    assert str(image_run[0].folder.parent.parent) not in recipe


def test_card_and_report_name_the_tasks(image_run):
    folder = image_run[0].folder
    card = (folder / "model" / "shade" / "README.md").read_text(encoding="utf-8")
    assert "It was trained on a backbone shared with colour" in card
    assert "task: multi-task" in card
    report = (folder / "report.html").read_text(encoding="utf-8")
    value = metrics_of(folder)["tasks"]["shade"]["test"]["accuracy"]
    assert f"shade: the accuracy is {value:.3f}" in report
    assert 'href="tasks/colour/report.html"' in report
    assert (folder / "tasks" / "colour" / "report.html").is_file()


def test_a_run_of_several_tasks_is_refused_where_one_model_is_meant(image_run):
    folder = image_run[0].folder
    told = refusal(lambda: evaluate(folder))
    assert told == (
        f"{folder} contains the models of several tasks. "
        f"Use the model of one task: {folder}/tasks/colour or {folder}/tasks/shade."
    )
    assert refusal(lambda: check_finished(folder)) == (
        f"{folder} must contain a model. Got models of several tasks. "
        f"Publish each one separately: {folder}/tasks/colour or {folder}/tasks/shade."
    )


def test_the_plan_shows_the_examples_of_an_epoch(tmp_path, texts):
    (tmp_path / "recipe.yaml").write_text(dump_recipe(texts()), encoding="utf-8")
    told = CliRunner().invoke(app, ["plan", str(tmp_path / "recipe.yaml")]).output
    assert (
        "An epoch has 42 examples: 21 of type (each 0.75 times on average), 21 of words (each 1.5 times on average)"
        in told
    )
    assert plan_stages(texts()).plan.stages[0].steps == 12


def test_a_preview_has_examples_of_each_task(tmp_path, texts):
    page = preview(texts(), tmp_path / "page.html", examples=2, views=1).read_text(encoding="utf-8")
    labels = re.findall("<tr><td>([^<]*)</td>", page)
    assert sorted(labels[:2]) == ["type: bad", "type: good"]
    assert len(labels) == 4 and all(label.startswith("words: ") for label in labels[2:])


def test_doctor_checks_the_model_of_each_task(tmp_path, images):
    first, second = check_suites(images(), tmp_path)
    assert " for colour: image-classification, " in first.title
    assert " for shade: image-classification, " in second.title
    assert [check.name for check in first.checks] == [check.name for check in second.checks]
    content = images().model_dump(mode="json")
    content["tasks"]["shade"]["data"]["columns"]["label"] = "size"
    told = refusal(lambda: list(check_suites(parse_recipe(content), tmp_path)))
    assert told.startswith("tasks.shade.data.columns.label ")


def test_a_plan_needs_no_data(images):
    content = images().model_dump(mode="json")
    content["tasks"]["shade"]["data"]["path"] = "nobody/has-this"
    report = plan_stages(parse_recipe(content))
    assert report.examples is None
    assert "shade: the data 'nobody/has-this' is not available: the plan assumes 2 labels" in " ".join(
        report.notes
    )


def test_errors_in_stages_are_reported_without_data_too(images):
    content = images().model_dump(mode="json")
    content["tasks"]["shade"]["data"]["path"] = "nobody/has-this"
    content["stages"][0] |= {"optimizer": "adamm", "best": {"metric": "size/accuracy"}, "early_stopping": 2}
    assert refusal(lambda: plan_stages(parse_recipe(content))) == (
        "stages[0].optimizer must be an optimizer that the Trainer supports. Got 'adamm'. Nearest: 'adam'.\n"
        "stages[0].best.metric must be mean, loss, or TASK/METRIC of one of the tasks. Got 'size/accuracy'. "
        "Nearest: 'shade/accuracy'."
    )
    content["stages"][0] |= {"optimizer": "adamw", "best": {"metric": "mean"}}
    content["tasks"]["shade"]["metrics"] = ["acuracy"]
    assert "tasks.shade.metrics[0] must be a metric. Got 'acuracy'." in refusal(
        lambda: plan_stages(parse_recipe(content))
    )
    content["stages"][0] |= {"optimizer": "adamm"}
    content["model"]["path"] = "./nowhere"
    told = refusal(lambda: plan_stages(parse_recipe(content)))
    assert "stages[0].optimizer must be" in told and "nowhere" in told


def test_a_recipe_of_several_tasks_survives_being_written_out_and_takes_overrides(tmp_path, images):
    recipe = images()
    (tmp_path / "recipe.yaml").write_text(dump_recipe(recipe), encoding="utf-8")
    assert load_recipe(tmp_path / "recipe.yaml") == recipe
    changes = ["tasks.shade.weight=0.25", "mixing=equal", "tasks.colour.data.split.test=0.2"]
    other = load_recipe(tmp_path / "recipe.yaml", changes)
    assert (other.tasks["shade"].weight, other.mixing.method) == (0.25, "equal")
    assert other.tasks["colour"].data.split.test == 0.2


def test_images_that_are_decoded_once_train_the_same(tmp_path, images, image_run, caplog):
    caplog.set_level("INFO", logger="hf_finetune")
    folder = quick_run(images(speed={"decode_once": True}), tmp_path / "run").folder
    assert "Decoded images cached" in caplog.text
    for stage in ("01-head", "02-all"):
        one, other = (
            load_file(each / "stages" / stage / "model.safetensors") for each in (image_run[0].folder, folder)
        )
        assert changed(one, other) == set()


@pytest.mark.parametrize("kind", ["images", "texts"])
def test_a_time_limit_that_is_not_reached_changes_nothing(tmp_path, request, kind):
    make, before = request.getfixturevalue(kind), request.getfixturevalue(f"{kind[:-1]}_run")[0].folder
    quick_run(make(limit="10h"), tmp_path / "run")
    for stage in (path.name for path in (before / "stages").iterdir()):
        names = [folder / "stages" / stage / "model.safetensors" for folder in (before, tmp_path / "run")]
        assert changed(*map(load_file, names)) == set()
