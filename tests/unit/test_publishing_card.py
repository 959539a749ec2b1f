"""The lists of classes in the model card."""

import re
from dataclasses import replace

import pytest
from report_helpers import make_record

from hf_finetune.publishing.card import render_card
from hf_finetune.recipe.load import parse_recipe

RECIPE = {
    "task": "text-classification",
    "model": "some/checkpoint",
    "data": "some/data",
    "stages": [
        {"name": "head", "train": "head", "epochs": 2, "lr": 1e-2},
        {"name": "all", "train": "all", "epochs": 4, "lr": 1e-4},
    ],
}
MANY = tuple(f"class {index:02d}" for index in range(30))


def limitations(record):
    text = render_card(record, parse_recipe(RECIPE), {})
    return text[text.index("## Limitations") : text.index("## Recipe")]


@pytest.mark.parametrize(
    ("rare", "heading"),
    [
        (30, "30 of 30 classes have fewer than 20 training examples; the 5 rarest:\n\n- class 00: 2\n"),
        (2, "2 of 30 classes have fewer than 20 training examples:\n\n- class 00: 2\n- class 01: 3\n\n"),
        (1, "1 of 30 classes has fewer than 20 training examples:\n\n- class 00: 2\n\n"),
    ],
)
def test_the_card_says_how_many_classes_are_rare(rare, heading):
    record = make_record(names=MANY)
    counts = {name: min(2 + row, 19) if row < rare else 50 for row, name in enumerate(MANY)}
    record.data["splits"]["train"]["classes"] = counts
    text = limitations(record)
    assert heading in text
    assert len(re.findall(r"^- class \d\d: \d+$", text, re.MULTILINE)) == min(rare, 5)


def test_the_card_says_that_the_list_of_weak_classes_is_cut():
    note = "(number of test examples; values from few examples are uncertain"
    text = limitations(make_record(names=MANY, skill=-20.0))
    assert (
        f"The 5 of 30 classes with the lowest F1 on the test split {note}; 30 classes have an F1 of 0):"
        in text
    )
    assert f"The 5 of 30 classes with the lowest F1 on the test split {note}):" in limitations(
        make_record(names=MANY)
    )
    assert f"F1 of each class on the test split {note}):" in limitations(make_record())


@pytest.mark.parametrize(("target", "has_classes"), [("single_label", True), ("regression", False)])
def test_the_limitations_are_those_of_the_label_type_and_the_test_split(target, has_classes):
    record = make_record(target)
    classes, test = "The model knows only the classes", "The test metrics apply to data like the test split"
    assert (classes in limitations(record)) == has_classes and test in limitations(record)
    untested = replace(record, metrics={**record.metrics, "test": {}}, predictions=None, metric_names=())
    assert test not in limitations(untested) and "There was no test split" in limitations(untested)
