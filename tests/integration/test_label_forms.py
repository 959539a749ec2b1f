"""Whole runs on labels of other forms: probabilities with weights, and a column for each class with gaps."""

import csv
import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from run_helpers import Stop, assert_equal_runs, interrupt, quick_run

from hf_finetune.evaluation.evaluate_run import evaluate
from hf_finetune.evaluation.predict import predict
from hf_finetune.recipe.load import parse_recipe

WORDS = ("good", "great", "fine", "bad", "poor", "dull")


def write(path, columns, row):
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["text", *columns])
        for number in range(40):
            text = f"{WORDS[number % 6]} film {WORDS[number // 6 % 6]} {number}"
            writer.writerow([text, *row(number)])
    return path


def recipe_of(checkpoint, data, stages, **fields):
    task = {"task": "text-classification", "model": str(checkpoint)}
    fast = {"evaluation": {"linear_probe": None}}
    return parse_recipe({**task, "data": data, "stages": stages, **fast, **fields})


@pytest.fixture(scope="module")
def soft(tmp_path_factory, bert_checkpoint):
    """Return a recipe for probabilities of two classes and weights, with accumulation, smoothing and class weights."""
    folder = tmp_path_factory.mktemp("soft")

    def row(number):
        share = (0.9, 0.7, 0.6)[number % 3]
        likely = share if number % 6 < 3 else round(1 - share, 1)
        return likely, round(1 - likely, 1), (1, 0.5, 3, 0)[number % 4]

    path = write(folder / "soft.csv", ("praise", "blame", "w"), row)
    data = {
        "path": str(path),
        "columns": {"label": ["praise", "blame"], "weight": "w"},
        "split": {"validation": 0.15, "test": 0.15},
    }
    common = {"epochs": 2.0, "batch_size": 4, "accumulation": 2, "label_smoothing": 0.1}
    stages = [
        {"name": "head", "train": "head", "lr": 0.05, "balance": "class_weights", **common},
        {"name": "all", "train": "all", "lr": 0.005, "regularize": {"r_drop": 0.5}, **common},
    ]
    return recipe_of(bert_checkpoint, data, stages)


def test_probabilities_and_weights_go_through_a_run_that_is_interrupted(tmp_path, soft):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    result = quick_run(soft, whole)
    interrupt(soft, parts, Stop("02-all", 4, "save"))
    quick_run(soft, parts, resume=True)
    assert_equal_runs(whole, parts)
    said = json.loads((whole / "data.json").read_text(encoding="utf-8"))["notes"]
    assert any("The labels are probabilities" in note for note in said)
    assert any("weighted in the loss by 'w': 0 to 3" in note for note in said)
    for page in ("report.html", "model/README.md"):
        assert "weighted in the loss" in (whole / page).read_text(encoding="utf-8")
    assert evaluate(whole).metrics["accuracy"] == result.metrics["test"]["accuracy"]
    config = json.loads((whole / "model" / "config.json").read_text(encoding="utf-8"))
    assert config["id2label"] == {"0": "praise", "1": "blame"}
    assert config["problem_type"] == "single_label_classification"


def test_images_with_probabilities_are_fitted_and_mixed(tmp_path, squares, timm_checkpoint):
    rows = [
        {
            "image": str(path),
            "light": 0.25 + 0.5 * (number % 2),
            "dark": 0.75 - 0.5 * (number % 2),
            "w": 1 + number % 3,
        }
        for number, path in enumerate(sorted(squares.rglob("*.png")))
    ]
    with (tmp_path / "soft.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    columns = {"label": ["light", "dark"], "weight": "w"}
    data = {"path": str(tmp_path / "soft.csv"), "columns": columns, "split": {"validation": 0.2, "test": 0.2}}
    stages = [
        {"name": "head", "train": "head", "fit": "logistic_regression"},
        {
            "name": "all",
            "train": "last:1",
            "lr": 0.01,
            "epochs": 1,
            "batch_size": 4,
            "regularize": {"mixup": 0.3},
        },
    ]
    recipe = recipe_of(timm_checkpoint, data, stages, task="image-classification")
    assert np.isfinite(quick_run(recipe, tmp_path / "run").metrics["test"]["log_loss"])


def test_a_run_accepts_a_column_for_each_class_with_missing_labels(tmp_path, bert_checkpoint):
    def row(number):
        return number % 2, ("yes", "no")[number % 3 == 0], "" if number % 4 == 0 else number % 5 == 0

    path = write(tmp_path / "gaps.csv", ("odd", "third", "fifth"), row)
    data = {
        "path": str(path),
        "columns": {"label": ["odd", "third", "fifth"]},
        "split": {"validation": 0.2, "test": 0.2},
    }
    stages = [
        {"name": "head", "train": "head", "fit": "logistic_regression"},
        {"name": "all", "train": "last:1", "lr": 0.01, "epochs": 1.0, "batch_size": 4},
    ]
    evaluation = {"thresholds": True, "folds": 2, "linear_probe": None}
    recipe = recipe_of(
        *(bert_checkpoint, data, stages),
        evaluation=evaluation,
        speed={"prefix_cache": {"views": 1}},
        metrics=["f1_micro", "log_loss"],
    )
    metrics = quick_run(recipe, tmp_path / "run").metrics
    assert [stage["prefix_cache"]["used"] for stage in metrics["stages"]] == [True, True]
    table = pq.read_table(tmp_path / "run" / "predictions.parquet")
    hidden = {
        int(text.split()[3]) % 4 == 0: unknown == ["fifth"]
        for text, unknown in zip(
            _texts(path, table["id"].to_pylist()), table["unknown"].to_pylist(), strict=True
        )
    }
    assert hidden == {True: True, False: False}
    again = evaluate(tmp_path / "run")
    assert again.metrics["log_loss"] == pytest.approx(metrics["test"]["log_loss"])
    assert len(metrics["cross_validation"]["metrics"]["f1_micro"]["values"]) == 2
    other = evaluate(tmp_path / "run", data=str(path), split="train")
    assert np.isnan(other.labels).sum() == 10
    (found,) = predict(str(tmp_path / "run"), ["good film"])
    assert set(found.label) <= {"odd", "third", "fifth"}


def _texts(path, ids):
    with path.open(encoding="utf-8") as file:
        rows = [row["text"] for row in csv.DictReader(file)]
    return [rows[int(name.rpartition(":")[2])] for name in ids]
