"""Class balancing in runs: the settings of a stage depend on its training examples."""

import json

import pytest
from kit_stages import skewed_reviews
from run_helpers import quick_run, tiny_text_recipe, with_stages

from hf_finetune.recipe.load import parse_recipe
from hf_finetune.training import averaged_stage


@pytest.fixture
def told(monkeypatch):
    """Record the settings of each stage, which trains as usual."""
    calls = []

    def train_stage(*arguments, **options):
        calls.append((arguments[-1].train, *options["methods"]))
        return original(*arguments, **options)

    original = averaged_stage.train_stage
    monkeypatch.setattr(averaged_stage, "train_stage", train_stage)
    return calls


def short(recipe, balance):
    return with_stages(recipe, *[{"epochs": None, "max_steps": 1, "balance": balance}] * 2)


@pytest.mark.parametrize("folds", [None, 2])
def test_the_sampler_knows_the_class_of_each_example(tmp_path, told, reviews, bert_checkpoint, folds):
    table = skewed_reviews(reviews, tmp_path / "reviews.csv")
    recipe = tiny_text_recipe(table, bert_checkpoint, evaluation={"folds": folds, "linear_probe": None})
    quick_run(short(recipe, "sampler"), tmp_path / "run")
    assert len(told) == 2 * (1 + (folds or 0))
    for train, balance in told:
        assert [example["labels"] for example in train] == list(balance.classes)
        assert set(balance.classes) == {0, 1}


def test_weights_of_several_labels_are_counted_among_the_examples(tmp_path, told, bert_checkpoint):
    """Of every six examples three have label a, two b and one c."""
    labels = [["a"], ["a", "b"], ["a", "b", "c"], [], [], []]
    words = ("good", "great", "fine", "bad", "poor", "dull")
    rows = [
        {"text": f"the {words[index // 6]} {words[index % 6]} film", "label": labels[index % 6]}
        for index in range(36)
    ]
    (tmp_path / "topics.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    recipe = tiny_text_recipe(tmp_path / "topics.jsonl", bert_checkpoint)
    data = {"path": str(tmp_path / "topics.jsonl"), "split": {"validation": 0.0, "test": 0.0}}
    recipe = parse_recipe({**recipe.model_dump(mode="json"), "data": data})
    quick_run(short(recipe, "class_weights"), tmp_path / "run")
    assert told[0][1].class_weights == pytest.approx((1.0, 2.0, 5.0))


def test_the_sampler_works_with_a_prefix_cache(tmp_path, told, reviews, bert_checkpoint):
    table = skewed_reviews(reviews, tmp_path / "reviews.csv")
    recipe = tiny_text_recipe(table, bert_checkpoint, speed={"prefix_cache": {"views": 1}})
    changes = [{"epochs": 4.0, "balance": "sampler"}, {"epochs": None, "max_steps": 1}]
    stages = quick_run(with_stages(recipe, *changes), tmp_path / "run").metrics["stages"]
    assert [stage["prefix_cache"]["used"] for stage in stages] == [True, False]
