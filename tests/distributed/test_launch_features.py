"""A fitted head on two processes: the first one fits, both have it, and the next stage trains it further."""

import csv

import pytest
import torch
from launching import spread
from multitask_data import texts_by_length
from safetensors.torch import load_file

from hf_finetune.recipe.load import parse_recipe
from hf_finetune.runs.run import run


@pytest.fixture(scope="module")
def recipe(reviews, bert_checkpoint):
    return parse_recipe(
        {
            "task": "text-classification",
            "model": {"path": str(bert_checkpoint), "dropout": 0.0},
            "data": {"path": str(reviews), "split": {"validation": 0.15, "test": 0.15}},
            "stages": [
                {"name": "head", "train": "head", "fit": "logistic_regression"},
                {"name": "all", "train": "all", "epochs": 1.0, "lr": 0.001, "batch_size": 4},
            ],
        }
    )


@pytest.mark.parametrize("cache", [{"views": 1}, None])
def test_two_processes_fit_the_head_of_one_and_train_it_further(tmp_path, recipe, cache):
    asked = parse_recipe({**recipe.model_dump(mode="json"), "speed": {"prefix_cache": cache}})
    done = spread(tmp_path, asked, 2)
    assert done.code == 0, done.err[-4000:]
    run(asked, tmp_path / "alone")
    file = "stages/01-head/model.safetensors"
    fitted, alone = load_file(tmp_path / "run" / file), load_file(tmp_path / "alone" / file)
    for name, value in alone.items():
        torch.testing.assert_close(fitted[name], value, rtol=1e-3, atol=1e-4)
    first, second = (done.weights("02-all", rank, "before") for rank in range(2))
    assert [name for name, value in fitted.items() if not torch.equal(first[name], value)] == []
    assert [name for name in first if not torch.equal(first[name], second[name])] == []
    stages = done.metrics()["stages"]
    assert stages[0]["fit"]["method"] == "logistic_regression" and stages[0]["steps"] == 0
    assert stages[0]["validation"]["accuracy"] >= 0.5 and stages[1]["steps"] == 4


def test_two_processes_fit_continuous_targets_and_evaluate_slices_as_one_does(tmp_path, bert_checkpoint):
    with texts_by_length(tmp_path / "words.csv").open(encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    with (tmp_path / "styled.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*header, "style"])
        writer.writerows([*row, ("flat", "round")[index % 2]] for index, row in enumerate(rows))
    recipe = parse_recipe(
        {
            "task": "text-classification",
            "model": {"path": str(bert_checkpoint), "dropout": 0.0},
            "data": {
                "path": str(tmp_path / "styled.csv"),
                "columns": {"label": "words"},
                "split": {"validation": 0.2, "test": 0.4},
            },
            "stages": [{"name": "head", "train": "head", "fit": "ridge"}],
            "evaluation": {"slices": ["style"]},
        }
    )
    done = spread(tmp_path, recipe, 2)
    assert done.code == 0, done.err[-4000:]
    alone = run(recipe, tmp_path / "alone").metrics
    found = done.metrics()
    assert found["stages"][0]["fit"]["method"] == "ridge"
    assert found["test"] == pytest.approx(alone["test"], rel=1e-4)
    for one, other in zip(*(each["slices"]["style"]["slices"] for each in (found, alone)), strict=True):
        assert (one["name"], one["examples"]) == (other["name"], other["examples"])
        assert one["metrics"] == pytest.approx(other["metrics"], rel=1e-4)
