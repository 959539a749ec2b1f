"""Metrics against values computed by hand, and their names."""

import math
import warnings

import evaluate
import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from hf_finetune.errors import InputError
from hf_finetune.evaluation.metrics import (
    all_metrics,
    check_metric_names,
    compute_metrics,
    decide,
    default_metrics,
    defined_metrics,
    greater_is_better,
    label_array,
    metric_problem,
    probabilities,
)
from hf_finetune.targets.costs import cost_matrix, cost_problems
from hf_finetune.targets.metric import NO_SETTINGS, MetricSettings
from hf_finetune.targets.scored_examples import ScoredExamples

TARGETS = ("single_label", "multi_label", "regression")


@pytest.fixture(autouse=True)
def strict(monkeypatch):
    monkeypatch.setattr(evaluate.config, "HF_EVALUATE_OFFLINE", True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def compute(target, scores, labels, names=None):
    return computed(names or all_metrics(target), target, np.array(scores), np.array(labels))


def computed(names, target, scores, labels, settings=NO_SETTINGS):
    return compute_metrics(names, ScoredExamples(labels, scores, target, settings=settings))


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
            # 2 of 4 right; labels 2, 2, 0 and decisions 2, 1, 1.
            "matthews_correlation": (2 * 4 - (2 * 2 + 2 * 1)) / math.sqrt((16 - 8) * (16 - 6)),
            "cohen_kappa": (2 / 4 - 6 / 16) / (1 - 6 / 16),
            "top5_accuracy": 1.0,
            # Class 0: 0.7 and 0.1 against 0.3 and 0.8 win one pair of four. Class 1: 0.6 and 0.1 win two.
            "roc_auc": (1 / 4 + 2 / 4) / 2,
            # Of the examples ranked by class 0, its own are second and last; by class 1, first and last.
            "mean_average_precision": ((1 / 2 + 2 / 4) / 2 + (1 / 1 + 2 / 4) / 2) / 2,
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
    assert math.isnan(found.pop("roc_auc")) and math.isnan(found.pop("cohen_kappa"))
    assert found.pop("matthews_correlation") == 0
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
            "jaccard": (1 / 2 + 0 + 1) / 3,
            "roc_auc": 1.0,  # only class 1 has examples of both kinds
            "mean_average_precision": 1.0,  # class 2 has no example
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
def test_output_that_is_not_finite_is_reported(broken):
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


def test_metrics_declare_whether_higher_is_better():
    assert [name for target in TARGETS for name in all_metrics(target) if not greater_is_better(name)] == [
        "log_loss",
        "log_loss",
        "mae",
        "rmse",
    ]
    assert greater_is_better("matthews_correlation") and greater_is_better("recall:loss")
    assert not greater_is_better("expected_cost") and not greater_is_better("expected_cost_bayes")
    assert not greater_is_better("mse")


def test_every_unknown_name_is_reported():
    with pytest.raises(InputError) as caught:
        check_metric_names(["accuracy", "acuracy", "mae"], "single_label")
    known = ", ".join(map(repr, defined_metrics("single_label")))
    assert str(caught.value) == (
        "metrics[1] must be a metric of this package for the label type single_label unless --trust-remote-code is "
        "given. Got 'acuracy'. Nearest: 'accuracy'. With the option, evaluate.load runs the script 'acuracy' of "
        "the Hub, or its cached copy.\n"
        f"metrics[2] must be a metric for the label type single_label. Got 'mae'. Known: {known}."
    )


MORE = (
    ("matthews_correlation", lambda labels, said: sklearn_metrics.matthews_corrcoef(labels, said)),
    ("cohen_kappa", lambda labels, said: sklearn_metrics.cohen_kappa_score(labels, said)),
    ("f1_micro", lambda labels, said: sklearn_metrics.f1_score(labels, said, average="micro")),
    *(
        (
            f"cohen_kappa_{weights}",
            lambda labels, said, weights=weights: sklearn_metrics.cohen_kappa_score(
                labels, said, labels=range(5), weights=weights
            ),
        )
        for weights in ("linear", "quadratic")
    ),
)


@pytest.mark.parametrize(("name", "reference"), MORE)
def test_further_metrics_are_those_of_scikit_learn(name, reference):
    for seed in range(20):
        chance = np.random.default_rng(seed)
        labels, scores = chance.integers(0, 4, 30), chance.dirichlet(np.ones(5), 30)
        found = compute("single_label", scores, labels, [name])[name]
        assert found == pytest.approx(reference(labels, scores.argmax(axis=1)), abs=1e-12)


def test_top_k_is_of_any_k_and_agrees_with_scikit_learn():
    chance = np.random.default_rng(0)
    labels, scores = chance.integers(0, 7, 40), chance.dirichlet(np.ones(7), 40)
    for k in (1, 2, 3, 6):
        expected = sklearn_metrics.top_k_accuracy_score(labels, scores, k=k, labels=range(7))
        assert compute("single_label", scores, labels, [f"top_{k}_accuracy"])[f"top_{k}_accuracy"] == expected
    assert compute("single_label", [[0.3, 0.7]] * 2, [0, 1], ["top_1_accuracy"]) == {"top_1_accuracy": 0.5}
    check_metric_names(["top_3_accuracy"], "single_label", settings=MetricSettings(tuple("abcd")))
    with pytest.raises(InputError) as caught:
        check_metric_names(["top_4_accuracy"], "single_label", settings=MetricSettings(tuple("abcd")))
    assert str(caught.value) == (
        "metrics[0] must have a k smaller than the number of classes (4). Got 'top_4_accuracy'."
    )


def test_a_class_has_its_own_scores_by_its_name():
    settings = MetricSettings(("soup: hot", "salad", "tea"))
    names = ["recall:soup: hot", "precision:salad", "f1:tea"]
    check_metric_names(names, "single_label", settings=settings)
    found = computed(names, "single_label", np.array(SCORES), np.array(LABELS), settings)
    assert found == {"recall:soup: hot": 1 / 2, "precision:salad": 1.0, "f1:tea": 0.0}
    several = np.array([[1, 0, 0], [1, 1, 0]])
    scores = np.array([[0.9, 0.6, 0.1], [0.2, 0.7, 0.1]])
    found = computed(names, "multi_label", scores, several, settings)
    assert found == {"recall:soup: hot": 1 / 2, "precision:salad": 1 / 2, "f1:tea": 0.0}
    with pytest.raises(InputError) as caught:
        check_metric_names(["recall:salat", "recall:"], "single_label", settings=settings)
    assert str(caught.value) == (
        "metrics[0] must be 'recall:' followed by a class of the data. Got 'recall:salat'. Nearest: 'salad'.\n"
        "metrics[1] must be 'recall:' followed by a class of the data. Got 'recall:'. Known: 'soup: hot', "
        "'salad', 'tea'."
    )


def test_expected_cost_is_of_the_likeliest_class_or_of_the_cheapest():
    settings = MetricSettings(("soup", "salad", "tea"), {"soup": {"salad": 5, "default": 2}})
    assert settings.cost_matrix().tolist() == [[0, 5, 2], [1, 0, 1], [1, 1, 0]]
    scores, labels = np.array([[0.4, 0.5, 0.1], [0.1, 0.8, 0.1]]), np.array([0, 2])
    names = ["expected_cost", "expected_cost_bayes"]
    check_metric_names(names, "single_label", settings=settings)
    found = computed(names, "single_label", scores, labels, settings)
    # Bayes: of the first, soup costs 0.6, salad 2.1, tea 1.3; of the second, 0.9, 0.6 and 1.0.
    assert found == {"expected_cost": (5 + 1) / 2, "expected_cost_bayes": (0 + 1) / 2}
    assert set(names) <= set(all_metrics("single_label", 3, settings))
    with pytest.raises(InputError, match=r"Set the misclassification costs in evaluation\.costs\."):
        check_metric_names(["expected_cost"], "single_label", settings=MetricSettings(("soup", "salad")))


def test_costs_have_defaults_for_rows_and_for_classes():
    names = ("soup", "salad", "tea")
    assert cost_matrix({"default": {"default": 3}, "tea": {"soup": 7}}, names).tolist() == [
        [0, 3, 3],
        [3, 0, 3],
        [7, 3, 0],
    ]
    assert cost_matrix({"default": {"tea": 4}}, ("default", "tea")).tolist() == [[0, 4], [1, 0]]
    found = cost_problems({"soop": {"default": 1}, "soup": {"te": 1}}, "single_label", names)
    assert [str(problem) for problem in found] == [
        "evaluation.costs must be a class of the data, or default. Got 'soop'. Nearest: 'soup'.",
        "evaluation.costs.soup must be a class of the data, or default. Got 'te'. Nearest: 'tea'.",
    ]
    (problem,) = cost_problems({"soup": {"tea": 1}}, "multi_label", names)
    assert problem.rule == "is only supported for single-label data"


@pytest.mark.parametrize(
    ("name", "target", "meant"),
    [
        ("mcc", "single_label", "Use 'matthews_correlation'."),
        ("cohen_kappa_score", "single_label", "Use 'cohen_kappa'."),
        ("quadratic_weighted_kappa", "single_label", "Use 'cohen_kappa_quadratic'."),
        ("mAP", "multi_label", "Use 'mean_average_precision'."),
        ("f1", "single_label", "Use 'f1_macro'."),
        ("F1-Macro", "single_label", "Use 'f1_macro'."),
        ("eval_f1", "single_label", "Use 'f1_macro'."),
        ("eval_accuracy", "single_label", "Use 'accuracy'."),
        ("top_k_accuracy", "single_label", "Use 'top_3_accuracy'."),
        ("mean_absolute_error", "regression", "Use 'mae'."),
        ("neg_log_loss", "single_label", "Use 'log_loss'."),
        ("matthews_correlation", "regression", "Known: 'mae', 'rmse', 'r2', 'spearman'."),
    ],
)
def test_names_of_other_libraries_lead_to_ours(name, target, meant):
    problem = metric_problem(name, target, "metrics[0]")
    assert problem.repair.startswith(meant) and problem.value == repr(name)


def test_metrics_that_are_slow_for_thousands_of_classes_are_computed_on_request_only():
    assert "roc_auc" in all_metrics("single_label", 1000)
    assert "mean_average_precision" in all_metrics("single_label", 200)
    assert "mean_average_precision" not in all_metrics("single_label", 201)
    assert not {"roc_auc", "mean_average_precision"} & set(all_metrics("single_label", 1001))
    assert {"roc_auc", "f1_micro", "cohen_kappa_quadratic"} <= set(defined_metrics("single_label"))
    chance = np.random.default_rng(0)
    labels, scores = chance.integers(0, 100_000, 4), chance.dirichlet(np.ones(100_000), 4)
    found = compute("single_label", scores, labels, ["matthews_correlation", "cohen_kappa_linear"])
    assert all(abs(value) < 1 for value in found.values())  # no confusion matrix is made
