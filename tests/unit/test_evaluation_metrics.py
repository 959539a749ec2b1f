"""Metrics against values worked out by hand, and the names they go by."""

import math
import warnings

import evaluate
import numpy as np
import pytest

from hf_finetune.errors import InputError
from hf_finetune.evaluation.metrics import (
    all_metrics,
    check_metric_names,
    compute_metrics,
    decide,
    default_metrics,
    greater_is_better,
    label_array,
    probabilities,
)

TARGETS = ("single_label", "multi_label", "regression")


@pytest.fixture(autouse=True)
def strict(monkeypatch):
    monkeypatch.setattr(evaluate.config, "HF_EVALUATE_OFFLINE", True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def compute(target, scores, labels, names=None):
    return compute_metrics(names or all_metrics(target), target, np.array(scores), np.array(labels))


# Three classes; class 2 occurs in the decisions only, so balanced accuracy and macro recall differ.
SCORES = [[0.7, 0.2, 0.1], [0.1, 0.3, 0.6], [0.3, 0.6, 0.1], [0.8, 0.1, 0.1]]
LABELS = [0, 0, 1, 1]


def test_single_label_by_hand():
    found = compute("single_label", SCORES, LABELS)
    assert found == pytest.approx(
        {
            "accuracy": 2 / 4,
            "balanced_accuracy": (1 / 2 + 1 / 2) / 2,
            "precision_macro": (1 / 2 + 1 + 0) / 3,
            "recall_macro": (1 / 2 + 1 / 2 + 0) / 3,
            "f1_macro": (1 / 2 + 2 / 3 + 0) / 3,
            "precision_weighted": (1 / 2 + 1) / 2,
            "recall_weighted": 1 / 2,
            "f1_weighted": (1 / 2 + 2 / 3) / 2,
            "top5_accuracy": 1.0,
            # Class 0: 0.7 and 0.1 against 0.3 and 0.8 win one pair of four. Class 1: 0.6 and 0.1 win two.
            "roc_auc": (1 / 4 + 2 / 4) / 2,
            "log_loss": -(math.log(0.7) + math.log(0.1) + math.log(0.6) + math.log(0.1)) / 4,
        }
    )
    assert list(found) == list(all_metrics("single_label"))


def test_top5_counts_the_five_likeliest_of_seven():
    scores = np.tile([0.28, 0.24, 0.2, 0.12, 0.1, 0.05, 0.01], (4, 1))
    assert compute("single_label", scores, [4, 5, 0, 6], ["top5_accuracy"]) == {"top5_accuracy": 0.5}


@pytest.mark.parametrize(("classes", "told"), [(5, False), (6, True)])
def test_top5_is_left_out_of_all_where_it_can_only_be_one(classes, told):
    assert ("top5_accuracy" in all_metrics("single_label", classes)) == told


def test_single_label_of_one_example():
    found = compute("single_label", [[0.25, 0.75]], [1])
    assert math.isnan(found.pop("roc_auc"))
    assert found.pop("log_loss") == pytest.approx(-math.log(0.75))
    assert set(found.values()) == {1.0}


def test_rows_that_miss_1_by_float_error_are_taken():
    scores = np.random.default_rng(0).dirichlet(np.ones(5), 20).astype(np.float32) * np.float32(1 + 1e-6)
    labels = np.arange(20) % 5
    exact = scores.astype(np.float64) / scores.astype(np.float64).sum(axis=1, keepdims=True)
    expected = -np.log(exact[np.arange(20), labels]).mean()
    assert compute("single_label", scores, labels, ["log_loss"])["log_loss"] == pytest.approx(expected)


def test_multi_label_by_hand():
    scores = [[0.9, 0.5, 0.2], [0.4, 0.1, 0.3], [0.8, 0.6, 0.4]]
    labels = [[1, 0, 0], [1, 0, 0], [1, 1, 0]]
    found = compute("multi_label", scores, labels)
    chosen = [0.9, 0.5, 0.8, 0.4, 0.9, 0.7, 0.8, 0.6, 0.6]
    assert found == pytest.approx(
        {
            "precision_micro": 3 / 4,
            "recall_micro": 3 / 4,
            "f1_micro": 3 / 4,
            "precision_macro": (1 + 1 / 2 + 0) / 3,
            "recall_macro": (2 / 3 + 1 + 0) / 3,
            "f1_macro": (4 / 5 + 2 / 3 + 0) / 3,
            "precision_weighted": (3 * 1 + 1 / 2) / 4,
            "recall_weighted": (3 * 2 / 3 + 1) / 4,
            "f1_weighted": (3 * 4 / 5 + 2 / 3) / 4,
            "exact_match": 1 / 3,
            "roc_auc": 1.0,  # class 1 alone has both kinds of example
            "log_loss": -sum(map(math.log, chosen)) / 9,
        }
    )


def test_multi_label_with_a_single_class_scores_that_class_alone():
    found = compute(
        "multi_label", [[0.9], [0.2], [0.1]], [[1], [1], [0]], ["f1_macro", "f1_micro", "exact_match"]
    )
    assert found == pytest.approx({"f1_macro": 2 / 3, "f1_micro": 2 / 3, "exact_match": 2 / 3})


def test_regression_by_hand():
    found = compute("regression", [1.0, 2.0, 5.0], [1.0, 3.0, 2.0])
    assert found == pytest.approx(
        {"mae": 4 / 3, "rmse": math.sqrt(10 / 3), "r2": 1 - 10 / 2, "spearman": 0.5}
    )


def test_regression_without_a_spread_has_no_rank_correlation():
    found = compute("regression", [2.0], [1.0])
    assert (found["mae"], found["rmse"]) == (1.0, 1.0)
    assert math.isnan(found["r2"])
    assert math.isnan(found["spearman"])
    assert math.isnan(compute("regression", [1.0, 1.0], [1.0, 2.0], ["spearman"])["spearman"])


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_output_that_is_not_finite_is_told(broken):
    with pytest.raises(InputError) as caught:
        compute("single_label", [[0.5, 0.5], [broken, 0.5]], [0, 1])
    assert str(caught.value) == (
        "The model's output must be finite numbers. Got nan or infinity for 1 of 2 examples. "
        "The training diverged: lower lr, or use speed.precision: fp32."
    )


@pytest.mark.parametrize(
    ("target", "scores", "labels"),
    [
        ("single_label", [[0.5, 0.5]], [0, 1]),
        ("single_label", np.empty((0, 2)), []),
        ("single_label", [[2.0, -1.5]], [0]),
        ("multi_label", [[0.5, 0.5]], [0]),
        ("regression", [[0.5]], [0.5]),
    ],
)
def test_shapes_that_do_not_fit_are_refused(target, scores, labels):
    with pytest.raises(ValueError, match="scores"):
        compute(target, scores, labels)


def test_scores_of_logits():
    assert probabilities(np.float32([[0, math.log(3)]]), "single_label") == pytest.approx(
        np.array([[0.25, 0.75]])
    )
    assert probabilities(np.float32([[0, math.log(3)]]), "multi_label") == pytest.approx(
        np.array([[0.5, 0.75]])
    )
    assert probabilities(np.float32([[2], [3]]), "regression").tolist() == [2.0, 3.0]
    assert probabilities(np.float32([[1000, 0]]), "single_label").tolist() == [[1.0, 0.0]]


def test_decisions():
    assert decide(np.array([[0.2, 0.8]]), "single_label").tolist() == [1]
    assert decide(np.array([[0.5, 0.49]]), "multi_label").tolist() == [[1, 0]]
    assert decide(np.array([2.5]), "regression").tolist() == [2.5]


def test_label_arrays():
    assert label_array([[0, 2], []], "multi_label", 3).tolist() == [[1, 0, 1], [0, 0, 0]]
    assert label_array([], "multi_label", 3).shape == (0, 3)
    assert label_array([2, 0], "single_label", 3).tolist() == [2, 0]
    assert label_array([0.5], "regression", 1).tolist() == [0.5]


@pytest.mark.parametrize("target", TARGETS)
def test_defaults_are_known(target):
    assert set(default_metrics(target)) <= set(all_metrics(target))
    check_metric_names(all_metrics(target), target)


def test_which_way_is_better():
    assert [name for target in TARGETS for name in all_metrics(target) if not greater_is_better(name)] == [
        "log_loss",
        "log_loss",
        "mae",
        "rmse",
    ]
    assert greater_is_better("matthews_correlation")
    assert not greater_is_better("mse")


def test_every_unknown_name_is_told():
    with pytest.raises(InputError) as caught:
        check_metric_names(["accuracy", "acuracy", "mae"], "single_label")
    known = ", ".join(map(repr, all_metrics("single_label")))
    assert str(caught.value) == (
        "metrics[1] must be a metric of this package for single_label labels unless --trust-remote-code is given. "
        "Got 'acuracy'. Nearest: 'accuracy'. With the option, evaluate.load runs the script that the Hub has under "
        "the name 'acuracy', or the copy of it in its cache.\n"
        f"metrics[2] must be defined for single_label labels. Got 'mae'. Known: {known}."
    )


SCRIPT = """
import datasets
import evaluate

class Share(evaluate.Metric):
    def _info(self):
        number = datasets.Value("int64")
        features = datasets.Features({{"predictions": number, "references": number}})
        return evaluate.MetricInfo(description="", citation="", inputs_description="", features=features)

    def _compute(self, predictions, references):
        right = sum(p == r for p, r in zip(predictions, references))
        return {result}
"""


@pytest.fixture
def script(tmp_path):
    """Write a metric script of one's own."""

    def write(name, result):
        path = tmp_path / f"{name}.py"
        path.write_text(SCRIPT.format(result=result))
        return str(path)

    return write


def test_a_script_of_ones_own_is_computed_beside_the_others(script):
    name = script("share", '{"share": right / len(references)}')
    check_metric_names([name], "single_label", trust_remote_code=True)
    found = compute("single_label", SCORES, LABELS, ["accuracy", name])
    assert found == {"accuracy": 0.5, name: 0.5}


def test_a_script_that_cannot_be_computed_is_told_before_training(script):
    several = script("several", '{"right": right, "wrong": len(references) - right}')
    failing = script("failing", "1 / 0")
    with pytest.raises(InputError) as caught:
        check_metric_names([several, failing], "single_label", place="stages[0].best", trust_remote_code=True)
    rule = "must be computable from the predictions and references of single_label data alone"
    assert str(caught.value) == (
        f"stages[0].best[0] {rule}. Got {several!r}. ValueError: it gives several values: 'right', 'wrong'.\n"
        f"stages[0].best[1] {rule}. Got {failing!r}. ZeroDivisionError: division by zero."
    )


def test_a_script_that_does_not_load_is_told(tmp_path, script):
    broken = tmp_path / "broken.py"
    broken.write_text("import no_such_package_at_all\n")
    with pytest.raises(InputError) as caught:
        check_metric_names([str(broken)], "single_label", trust_remote_code=True)
    assert str(caught.value).startswith(
        f"metrics[0] must be loadable by evaluate.load. Got {str(broken)!r}. ImportError: "
    )
