"""Runs of several tasks with other fields of a recipe: regularization, and slices of the test splits."""

import csv

import pytest
from multitask_data import image_recipe, squares_by_shade, text_recipe, texts_by_length
from run_helpers import NO_PROBE, Stop, changed, interrupt, log_of, metrics_of, quick_run, without_times
from safetensors.torch import load_file

from hf_finetune.evaluation.evaluate_run import evaluate

STRENGTHS = {"l1": 0.5, "l2_sp": 1.0, "ema": 0.9, "gradient_noise": 1e-4}
STYLES = ("flat", "round")


@pytest.fixture(scope="module")
def styled(tmp_path_factory, reviews):
    """Return both tables of the tasks with a column of styles."""
    folder = tmp_path_factory.mktemp("styled")
    words = texts_by_length(folder / "words.csv")
    found = []
    for name, table in (("reviews", reviews), ("amounts", words)):
        with table.open(encoding="utf-8", newline="") as file:
            header, *rows = csv.reader(file)
        with (folder / f"{name}-styled.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow([*header, "style"])
            writer.writerows([*row, STYLES[index % 2]] for index, row in enumerate(rows))
        found.append(folder / f"{name}-styled.csv")
    return found


@pytest.fixture(scope="module")
def recipe(styled, bert_checkpoint):
    """Return a recipe with all of these fields."""
    plain = text_recipe(*styled, bert_checkpoint)
    stages = [stage.model_dump(mode="json") | {"regularize": STRENGTHS} for stage in plain.stages]
    return text_recipe(*styled, bert_checkpoint, stages=stages, evaluation={"slices": ["style"], **NO_PROBE})


@pytest.fixture(scope="module")
def whole(tmp_path_factory, recipe):
    return quick_run(recipe, tmp_path_factory.mktemp("whole") / "run").folder


def weights_of(folder, stage):
    return load_file(folder / "stages" / stage / "model.safetensors")


def test_weights_of_head_and_backbone_become_exact_zeros_and_the_average_is_evaluated(whole):
    last = max((whole / "stages" / "02-all").glob("checkpoint-*"), key=lambda path: int(path.name[11:]))
    weights = load_file(last / "model.safetensors")  # the averaged weights may be the ones that are kept
    shared = "bert.encoder.layer.1.attention.self.query.weight"
    for name in ("classifier.task_type.weight", shared):
        assert (weights[name] == 0).any()
    assert all(isinstance(stage["averaged"], bool) for stage in metrics_of(whole)["stages"])


@pytest.mark.parametrize(("stage", "step", "moment"), [("head", 3, "ctrl-c"), ("all", 5, "begin")])
def test_an_interrupted_run_ends_as_one_straight_through_bit_for_bit(
    stage, step, moment, tmp_path, recipe, whole
):
    parts = tmp_path / "run"
    interrupt(recipe, parts, Stop(stage, step, moment))
    quick_run(recipe, parts, resume=True)
    for name in ("01-head", "02-all"):
        assert changed(weights_of(whole, name), weights_of(parts, name)) == set()
        assert log_of(whole, name) == log_of(parts, name)
    assert without_times(metrics_of(whole)) == without_times(metrics_of(parts))


@pytest.mark.parametrize("task", ["type", "words"])
def test_each_task_is_evaluated_by_slices(task, whole):
    found = metrics_of(whole / "tasks" / task)["slices"]["style"]
    assert {row["name"] for row in found["slices"]} == set(STYLES)
    again = evaluate(whole / "model" / task)
    assert without_times(again.slices) == metrics_of(whole / "tasks" / task)["slices"]
    page = (whole / "tasks" / task / "report.html").read_text(encoding="utf-8")
    assert "By style" in page


def test_hidden_layers_and_a_balanced_loss_go_with_several_tasks(tmp_path, squares, timm_checkpoint):
    shades = squares_by_shade(squares, tmp_path / "shades.csv")
    model = {"path": str(timm_checkpoint), "head": {"type": "mlp", "hidden": [8]}}
    plain = image_recipe(squares, shades, timm_checkpoint, model=model)
    last = [stage.model_dump(mode="json") | {"best": None} for stage in plain.stages]
    plain = image_recipe(squares, shades, timm_checkpoint, model=model, stages=last)
    focal = [stage | {"balance": "focal"} for stage in last]
    balanced = image_recipe(squares, shades, timm_checkpoint, model=model, stages=focal)
    one, other = (
        quick_run(recipe, tmp_path / name).folder for recipe, name in ((plain, "one"), (balanced, "other"))
    )
    assert changed(weights_of(one, "01-head"), weights_of(other, "01-head"))
    for task in ("colour", "shade"):
        again = evaluate(other / "model" / task)
        assert again.metrics["accuracy"] == metrics_of(other / "tasks" / task)["test"]["accuracy"]
