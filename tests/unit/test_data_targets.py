import datetime
import math

import pytest
from datasets import ClassLabel, Dataset, Features, List, Value

from hf_finetune.data.targets import encode_known, resolve_targets
from hf_finetune.errors import InputError
from hf_finetune.targets import TARGETS
from hf_finetune.targets.labels import class_count, encode_labels, read_labels


def resolve(labels, target="auto", declared=None, **others):
    values = {"train": labels, **others}
    ids = {split: [f"{split}:{row}" for row in range(len(values[split]))] for split in values}
    targets, problems = resolve_targets(values, ids, declared, target)
    if problems:
        raise InputError(problems)
    return targets


def error_text(*args, **kwargs):
    with pytest.raises(InputError) as error:
        resolve(*args, **kwargs)
    return str(error.value)


def test_labels_are_read_as_names_and_missing_ones_as_none():
    features = Features(
        {"a": ClassLabel(names=["x", "y"]), "b": List(ClassLabel(names=["x", "y"])), "c": Value("string")}
    )
    rows = {"a": [1, 0, -1, None], "b": [[0, 1], [], [1], None], "c": ["u", " ", "", None]}
    data = Dataset.from_dict(rows, features=features)
    assert read_labels(data, "a") == (["y", "x", None, None], ("x", "y"))
    assert read_labels(data, "b") == ([["x", "y"], [], ["y"], None], ("x", "y"))
    assert read_labels(data, "c") == (["u", None, None, None], None)
    assert read_labels(Dataset.from_dict({"d": [math.nan, 2.0]}), "d") == ([None, 2.0], None)


def test_texts_are_classes_in_the_order_of_their_letters():
    targets = resolve(["soup", "cake", "soup"], test=["tea"])
    assert (targets.target, targets.label_names) == ("single_label", ("cake", "soup", "tea"))
    assert targets.labels == {"train": [1, 0, 1], "test": [2]}
    assert targets.notes == ()


def test_declared_classes_keep_their_order_and_the_unused_are_noted():
    targets = resolve(["b", "a"], declared=("b", "c", "a"))
    assert targets.label_names == ("b", "c", "a")
    assert targets.labels["train"] == [0, 2]
    assert targets.notes == ("Classes that the data declares but that have no examples: 'c'.",)


def test_integers_are_class_names_in_numeric_order():
    targets = resolve([10, 2, 2])
    assert (targets.target, targets.label_names, targets.labels["train"]) == (
        "single_label",
        ("2", "10"),
        [1, 0, 0],
    )
    assert targets.notes == (
        "The labels are not strings; they are read as the class names '2', '10'. If they are continuous "
        "values, set data.target: regression.",
    )


def test_true_and_false_are_class_names():
    targets = resolve([True, False])
    assert (targets.label_names, targets.labels["train"]) == (("False", "True"), [1, 0])
    assert targets.notes == ("The labels are not strings; they are read as the class names 'False', 'True'.",)


def test_integral_floats_are_classes_if_they_are_few():
    assert resolve([1.0, 0.0, 1.0]).label_names == ("0", "1")
    assert resolve([float(n) for n in range(50)]).target == "single_label"
    assert resolve([float(n) for n in range(51)]).target == "regression"


def test_floats_are_continuous_targets():
    targets = resolve([0.5, 2.0], validation=[1.0])
    assert (targets.target, targets.label_names) == ("regression", ("label",))
    assert targets.labels == {"train": [0.5, 2.0], "validation": [1.0]}
    assert targets.notes == (
        "The labels are numbers with fractions or many distinct values, so the task is regression.",
    )


def test_lists_are_sets_of_classes():
    targets = resolve([["b", "a"], [], ["b"]])
    assert (targets.target, targets.label_names) == ("multi_label", ("a", "b"))
    assert targets.labels["train"] == [[0, 1], [], [1]]


def test_the_target_can_be_set():
    assert resolve([3, 1, 2], "regression").labels["train"] == [3.0, 1.0, 2.0]
    assert resolve([0.5, 1.0, 1.0], "single_label").label_names == ("0.5", "1")


@pytest.mark.parametrize(
    ("labels", "target", "found"),
    [
        (["a", "b"], "regression", "not numbers"),
        ([True, False], "regression", "not numbers"),
        ([[1], [2]], "regression", "lists"),
        (["a", "b"], "multi_label", "not lists of classes"),
        ([[0.5], [1.0]], "multi_label", "not lists of classes"),
        ([["a"], ["b"]], "single_label", "lists"),
    ],
)
def test_a_target_that_does_not_suit_the_labels(labels, target, found):
    assert error_text(labels, target) == (
        f"data.target must fit the labels, which are {found}. Got {target!r}. Remove it, or set it to auto."
    )


def test_missing_labels_are_reported():
    assert error_text(["a", None, "b"], test=[None, "a"]) == (
        "The label column must contain a label in every row. Got missing labels in 'train:1', 'test:0'. "
        "Label these rows or remove them."
    )
    assert error_text([["a"], ["b", None], None]) == (
        "The label column must contain a label in every row. Got missing labels in 'train:1', 'train:2'. "
        "Label these rows or remove them."
    )
    named = ", ".join(f"'train:{row}'" for row in range(8))
    assert error_text([None] * 25 + ["a"]) == (
        f"The label column must contain a label in every row. Got missing labels in {named} and 17 more. "
        f"Label these rows or remove them."
    )


def test_continuous_targets_beyond_the_range_of_training():
    assert error_text([0.5, -100.0, math.inf]) == (
        "The label column must contain only finite numbers. Got infinity in 'train:2'.\n"
        "The label column must not contain -100. Got -100 in 'train:1'. Shift or scale the labels: the "
        "Trainer ignores examples with the label -100."
    )


def test_rows_of_zeros_and_ones_are_not_taken_for_classes():
    assert error_text([[0, 1, 1], [1]]) == (
        "The label column must not repeat a class within an example. Got repeated classes in 'train:0'. Name each "
        "class once. In lists of zeros and ones, write one value for each class."
    )


def test_mixed_and_strange_labels():
    assert (
        error_text(["a", ["b"], ["c"]])
        == "The label column must contain a list in every row, or in no row. Got lists in 2 of 3 rows."
    )
    assert error_text([datetime.date(2020, 1, 1)]) == (
        "The label column must contain texts, numbers or lists of them. Got date."
    )


def test_labels_for_a_trained_model():
    assert encode_known("test", ["b", "a"], ["r0", "r1"], "single_label", ["a", "b"]) == ([1, 0], [])
    assert encode_known("test", [1, 0], ["r0", "r1"], "single_label", ["0", "1"]) == ([1, 0], [])
    assert encode_known("test", [["b", "a"]], ["r0"], "multi_label", ["a", "b"]) == ([[0, 1]], [])
    assert encode_known("test", [1, 2], ["r0", "r1"], "regression", ["label"]) == ([1.0, 2.0], [])


def test_labels_that_a_trained_model_does_not_know():
    values, ids = ["soop", "cake", None, "soop", "tea"], ["r0", "r1", "r2", "r3", "r4"]
    encoded, problems = encode_known("test", values, ids, "single_label", ["cake", "soup"])
    assert encoded == []
    assert [str(problem) for problem in problems] == [
        "The label column must contain a label in every row. Got missing labels in 'r2'. Label these rows "
        "or remove them.",
        "Label 'soop' in 'r0', 'r3' must be a class of the model. Nearest: 'soup'.",
        "Label 'tea' in 'r4' must be a class of the model. Known: 'cake', 'soup'.",
    ]


def test_labels_of_another_kind_than_the_model_predicts():
    _, problems = encode_known("test", [["a"]], ["r0"], "single_label", ["a", "b"])
    assert [str(problem) for problem in problems] == [
        "The model's target must fit the labels, which are lists. Got 'single_label'."
    ]


def test_the_label_column_carries_its_classes():
    features = Features({"label": TARGETS["multi_label"].feature(["a", "b"])})
    assert features["label"] == List(ClassLabel(names=["a", "b"]))
    assert class_count(features) == 2
    assert TARGETS["regression"].feature(["label"]) == Value("float32")
    assert class_count(Features({"label": TARGETS["single_label"].feature(["a", "b"])})) is None
    assert class_count(Features({"text": Value("string")})) is None


def test_sets_of_classes_become_zeros_and_ones():
    assert encode_labels([[0, 2], []], 3) == [[1.0, 0.0, 1.0], [0.0, 0.0, 0.0]]
    assert encode_labels([2, 0], None) == [2, 0]
