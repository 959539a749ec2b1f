"""Metrics by the values of a column, computed by hand."""

import numpy as np
import pytest
from datasets import Dataset

from hf_finetune.evaluation.evaluate import EvaluationResult
from hf_finetune.evaluation.intervals import intervals
from hf_finetune.evaluation.predictions import Predictions, read_predictions, write_predictions
from hf_finetune.evaluation.slices import (
    MISSING,
    evaluate_slices,
    name_slices,
    quartiles,
    sliced,
    training_slices,
)
from hf_finetune.report.slices import slice_tables, slices_verdict


def found(right, labels=None):
    """Return predictions for examples of two classes, of which the given ones are correct."""
    labels = np.arange(len(right)) % 2 if labels is None else labels
    answers = np.where(right, labels, 1 - labels)
    scores = np.where(answers[:, None] == np.arange(2), 0.8, 0.2)
    ids = tuple(f"{index}.png" for index in range(len(right)))
    return EvaluationResult({}, ids, labels, scores, "single_label", ("a", "b"), 0.0)


RIGHT = np.array(
    [True] * 18 + [False] * 6 + [True] * 30 + [False] * 2 + [False] * 3 + [True] * 12 + [False] * 8
)
VALUES = ["flat"] * 24 + ["round"] * 32 + ["tiny"] * 3 + [MISSING] * 20
TRAINING = {"style": {"ends": None, "training": ["flat", "line", MISSING]}}


def test_each_slice_has_its_metrics_its_interval_and_its_number_of_examples():
    content = evaluate_slices(found(RIGHT), {"style": VALUES}, TRAINING, ["accuracy"], seed=3)["style"]
    assert [row["name"] for row in content["slices"]] == [MISSING, "flat", "round", "tiny"]
    assert [row["examples"] for row in content["slices"]] == [20, 24, 32, 3]
    values = [row["metrics"]["accuracy"] for row in content["slices"]]
    assert values == pytest.approx([12 / 20, 18 / 24, 30 / 32, 0.0])
    assert content["metric"] == "accuracy" and content["worst"] == MISSING
    assert [row["in_training"] for row in content["slices"]] == [True, True, False, False]
    assert [row["enough"] for row in content["slices"]] == [True, True, True, False]
    alone = intervals(["accuracy"], found(RIGHT).examples[np.arange(24, 56)], seed=3)
    assert tuple(content["slices"][2]["intervals"]["accuracy"]) == alone["accuracy"]


def test_the_leading_metric_stands_first_and_the_worst_of_a_loss_is_the_greatest():
    content = evaluate_slices(found(RIGHT), {"style": VALUES}, {}, ["log_loss", "accuracy"], seed=0)["style"]
    assert list(content["slices"][0]["metrics"]) == ["log_loss", "accuracy"]
    by_hand = {name: -(right * np.log(0.8) + (1 - right) * np.log(0.2)) for name, right in
               ((MISSING, 0.6), ("flat", 0.75), ("round", 30 / 32), ("tiny", 0.0))}  # fmt: skip
    losses = {row["name"]: row["metrics"]["log_loss"] for row in content["slices"]}
    assert losses == pytest.approx(by_hand)
    assert content["worst"] == MISSING
    assert {row["in_training"] for row in content["slices"]} == {None}
    assert content["training"] is None
    (sentence,) = slices_verdict({"slices": {"style": content}})
    assert sentence.startswith(f"By style, the log_loss is highest for {MISSING}: ")
    assert not slice_tables({"style": content})[0].bars


def test_where_fewer_than_two_slices_have_enough_examples_none_is_the_worst():
    content = evaluate_slices(found(RIGHT[:30]), {"style": VALUES[:30]}, TRAINING, ["accuracy"], seed=0)
    assert content["style"]["worst"] is None
    assert slices_verdict({"slices": content}) == [
        "By style, fewer than two slices have enough examples to be compared."
    ]


def test_the_sentence_says_what_is_known_and_whether_it_may_be_chance():
    content = evaluate_slices(found(RIGHT), {"style": VALUES}, TRAINING, ["accuracy"], seed=0)
    ends = content["style"]["slices"][0]["intervals"]["accuracy"]
    assert slices_verdict({"slices": content}) == [
        f"By style, the accuracy is lowest for {MISSING}: 0.600 (95 % confidence interval {ends[0]:.3f} to "
        f"{ends[1]:.3f}, 20 examples), compared with 0.938 for round."
    ]
    close = np.array([True] * 20 + [False] * 10 + [True] * 22 + [False] * 8)
    content = evaluate_slices(
        found(close), {"style": ["flat"] * 30 + ["new"] * 30}, TRAINING, ["accuracy"], seed=0
    )
    (sentence,) = slices_verdict({"slices": content})
    assert sentence.endswith("compared with 0.733 for new. The difference may be due to chance.")
    content["style"]["slices"][0]["in_training"] = False
    (sentence,) = slices_verdict({"slices": content})
    assert "30 examples; it does not occur in training)" in sentence


def test_a_table_names_the_worst_the_unseen_and_those_of_too_few_examples():
    content = evaluate_slices(found(RIGHT), {"style": VALUES}, TRAINING, ["accuracy"], seed=0)
    (table,) = slice_tables(content)
    assert (table.column, table.metrics, table.bars) == ("style", ("accuracy",), True)
    assert [row["notes"] for row in table.rows] == [
        ["worst"],
        [],
        ["not in training"],
        ["not in training", "too few examples to compare"],
    ]


def test_other_kinds_of_labels_have_slices():
    amounts = np.array([1.0, 2.0, 3.0, 4.0])
    result = EvaluationResult(
        {}, ("",) * 4, amounts, amounts + np.array([0, 0, 1, 3]), "regression", ("label",), 0.0
    )
    content = evaluate_slices(result, {"kind": ["a", "a", "b", "b"]}, {}, ["mae", "rmse"], seed=0)["kind"]
    assert {row["name"]: row["metrics"] for row in content["slices"]} == {
        "a": {"mae": 0.0},
        "b": {"mae": 2.0},
    }
    several = np.array([[1, 0], [1, 1]])
    result = EvaluationResult(
        {}, ("", ""), several, np.array([[0.9, 0.1], [0.9, 0.1]]), "multi_label", ("x", "y"), 0.0
    )
    content = evaluate_slices(result, {"kind": ["a", "b"]}, {}, ["f1_micro"], seed=0)["kind"]
    assert {row["name"]: row["metrics"]["exact_match"] for row in content["slices"]} == {"a": 1.0, "b": 0.0}


# --- Numbers ---------------------------------------------------------------------------------------------------------


def test_many_different_numbers_become_quarters_of_the_training_examples():
    ends = quartiles([float(value) for value in range(1, 13)] + [None])
    assert ends == [3.75, 6.5, 9.25]
    names = name_slices([0.0, 3.75, 3.76, 6.5, 7.0, 9.25, 100.0, None], ends)
    assert names == [
        "up to 3.75", "up to 3.75", "3.75 to 6.5", "3.75 to 6.5", "6.5 to 9.25", "6.5 to 9.25", "above 9.25", MISSING,
    ]  # fmt: skip


def test_numbers_that_are_read_as_texts_are_in_the_quarters_of_training():
    names = name_slices(["0.0", "4", "n/a", "nan", None, "100"], [3.75, 6.5, 9.25])
    assert names == ["up to 3.75", "3.75 to 6.5", "n/a", "nan", MISSING, "above 9.25"]


def test_few_numbers_and_texts_are_slices_each():
    assert quartiles([2019.0, 2020.0, None] * 9) is None and quartiles(["x", "y"]) is None
    assert name_slices([2019.0, None, 0.5], None) == ["2019", MISSING, "0.5"]


def test_numbers_that_differ_in_their_last_digits_are_slices_each():
    found = name_slices([1_000_001.0, 1_000_002.0, 1e6, 0.12345678], None)
    assert found == ["1000001", "1000002", "1000000", "0.12345678"]
    ends = quartiles([1.7e9 + 60 * value for value in range(20)])
    assert len(set(name_slices([1.7e9 + 60 * value for value in range(20)], ends))) == 4
    assert name_slices([1.7e9], ends) == ["up to 1700000285"]


def test_quarters_with_equal_ends_are_one():
    values = [0.0] * 90 + [float(value) for value in range(1, 12)]
    ends = quartiles(values)
    assert ends == [0.0]
    assert name_slices([0.0, 5.0], ends) == ["up to 0", "above 0"]


def test_the_test_split_is_divided_as_the_training_split():
    train = Dataset.from_dict(
        {"slice:year": [float(value) for value in range(20)], "slice:style": ["x", None] * 10}
    )
    test = Dataset.from_dict({"slice:year": [100.0, 101.0], "slice:style": ["y", "x"], "id": ["a", "b"]})
    training = training_slices(train)
    assert training["style"] == {"ends": None, "training": [MISSING, "x"]}
    assert training["year"]["ends"] == [4.75, 9.5, 14.25]
    assert sliced(test, training) == {"year": ["above 14.25"] * 2, "style": ["y", "x"]}
    assert sliced(test, {})["year"] == ["100", "101"]


def test_predictions_contain_the_slices_and_are_read_without_them(tmp_path):
    said = found(np.array([True, False]))
    path = tmp_path / "predictions.parquet"
    columns = (said.ids, said.labels, said.scores, said.target, said.label_names)
    write_predictions(path, Predictions(*columns), slices={"style": ["flat", MISSING]})
    table = Dataset.from_parquet(str(path), cache_dir=str(tmp_path / "cache"))
    assert table.column_names == [
        "id",
        "label",
        "prediction",
        "probability:a",
        "probability:b",
        "slice:style",
    ]
    assert table["slice:style"][:] == ["flat", MISSING]
    read = read_predictions(path)
    assert read.label_names == ("a", "b") and np.array_equal(read.scores, said.scores)
