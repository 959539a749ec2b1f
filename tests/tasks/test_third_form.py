"""Labels that are neither classes nor numbers are not treated as numbers."""

import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from made_up_data import make_case
from run_helpers import quick_run
from throw_away_target import Counts, Tallies

from hf_finetune.data.checks import check_labels
from hf_finetune.data.column_types import infer_label_types
from hf_finetune.errors import InputError
from hf_finetune.evaluation.compare import compare_runs
from hf_finetune.evaluation.undefined_metrics import undefined_notes
from hf_finetune.methods.distillation import distillation_loss
from hf_finetune.publishing.space import write_space
from hf_finetune.recipe.load import parse_recipe
from hf_finetune.report.page import write_report
from hf_finetune.report.run_record import ERRORS_FILE
from hf_finetune.runs.pooling_choice import _compare_poolings
from hf_finetune.runs.prepare import plan_stages, prepare_run, start_processes
from hf_finetune.runs.preview import _label
from hf_finetune.targets import TARGETS, Target
from hf_finetune.targets.scored_examples import trial_examples
from hf_finetune.tasks import TASKS
from hf_finetune.training.linear_fit import fit_linear

KINDS = (Counts(), Tallies())


@pytest.fixture(scope="module", autouse=True)
def registered():
    """Register the label types, and remove them afterwards."""
    for kind in KINDS:
        TARGETS.add(kind)
    yield
    for kind in KINDS:
        TARGETS.remove(kind.name)


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    task = next(iter(TASKS.values()))
    return {kind.name: make_case(tmp_path_factory.mktemp(kind.name), task, kind) for kind in KINDS}


@pytest.fixture(scope="module")
def finished(tmp_path_factory, cases):
    return quick_run(cases["tallies"].recipe, tmp_path_factory.mktemp("run") / "run")


def read(finished, name):
    return json.loads((finished.folder / name).read_text(encoding="utf-8"))


def refused(content):
    with pytest.raises(InputError) as error:
        plan_stages(parse_recipe(content))
    return [str(problem) for problem in error.value.problems]


def test_no_solver_fits_the_head(cases):
    content = cases["tallies"].recipe.model_dump(mode="json")
    for solver in ("ridge", "logistic_regression"):
        content["stages"][0] = {"name": "head", "train": "head", "fit": solver}
        assert refused(content) == [
            f"stages[0].fit must be gradient for the label type tallies. Got '{solver}'. No solver supports their loss."
        ]
    content["stages"][0] = {"name": "head", "train": "head", "fit": "auto", "epochs": 1, "lr": 0.1}
    report = plan_stages(parse_recipe(content))
    assert report.recipe.stages[0].fit == "gradient"
    assert (
        "stages[0].fit: auto is gradient, because no solver supports the loss of tallies labels."
        in report.notes
    )
    with pytest.raises(ValueError, match="no solver minimizes the loss of tallies labels"):
        fit_linear(np.ones((4, 2)), np.ones(4), "tallies", 1)


def test_what_needs_classes_is_refused_by_name(cases):
    content = cases["tallies"].recipe.model_dump(mode="json")
    content["evaluation"]["calibrate"] = True
    content["stages"][1] |= {"balance": "focal", "regularize": {"mixup": 0.2}}
    problems = refused(content)
    assert "evaluation.calibrate is not supported for tallies labels." in problems
    assert "stages[1].balance must be none for tallies labels. Got 'focal'." in problems
    assert any("mixup is not supported for tallies labels. Got 0.2." in problem for problem in problems)
    assert not any("regression" in problem for problem in problems)


def test_no_squared_error_is_distilled():
    with pytest.raises(ValueError, match="no distillation loss is defined for tallies labels"):
        distillation_loss(torch.zeros(2, 1), torch.ones(2, 1), "tallies", 1.0)


@pytest.mark.parametrize(
    ("name", "weighting", "rule"),
    [
        ("tallies", "fixed", "are tallies labels, which multi-task recipes do not support"),
        ("counts", "uncertainty", "are counts labels, whose loss weighting: uncertainty does not support"),
    ],
)
def test_several_tasks_refuse_losses_that_they_cannot_join(cases, name, weighting, rule):
    recipe = cases[name].recipe.model_dump(mode="json")
    data = {key: recipe["data"][key] for key in ("path", "columns", "target", "split")}
    content = {
        "task": "multi-task",
        "model": recipe["model"],
        "tasks": {task: {"task": recipe["task"], "data": data} for task in ("first", "second")},
        "stages": [{"train": "head", "epochs": 1, "lr": 0.1}],
        "weighting": weighting,
    }
    assert refused(content) == [
        f"The labels of {task} {rule}. Train this task in a separate run." for task in ("first", "second")
    ]


def test_a_run_has_no_part_of_a_regression(finished):
    assert finished.metrics["baselines"] == {} and finished.metrics["baseline_differences"] == {}
    assert not {"calibration", "test_calibration", "thresholds"} & finished.metrics.keys()
    assert read(finished, ERRORS_FILE) == []
    assert {str(split["classes"]) for split in read(finished, "data.json")["splits"].values()} == {"{}"}
    page = write_report(finished.folder).read_text(encoding="utf-8")
    for words in ("Largest errors", "mean baseline", "ridge", "Confusion matrix"):
        assert words not in page
    (pair,) = compare_runs([finished.folder, finished.folder])
    assert pair.mcnemar is None


@pytest.mark.parametrize("name", ["counts", "tallies"])
def test_a_space_is_refused(tmp_path, cases, finished, name):
    folder = finished.folder
    if name == "counts":
        folder = quick_run(cases[name].recipe, tmp_path / "run").folder
    with pytest.raises(InputError, match=f"--space is not supported for {name} labels, which have their own"):
        write_space(folder, tmp_path / "space")
    assert not (tmp_path / "space").exists()


def test_labels_stay_text(cases):
    labels = {"train": ["1", "2,5", "3"]}
    ids = {"train": ["a", "b", "c"]}
    read_types = infer_label_types(labels, ids, untyped_splits={"train"}, requested="tallies")
    assert (read_types.values, read_types.notes, read_types.problems) == (labels, (), ())
    numbers = infer_label_types(labels, ids, untyped_splits={"train"}, requested="counts")
    assert numbers.values == {"train": [1.0, 2.5, 3.0]}
    assert _label(3.0, ("strokes",), "tallies") == "xxx"
    assert _label(3.0, ("label",), "counts") == "3"
    data = prepare_run(cases["tallies"].recipe, start_processes()).data
    assert data.label_names == ("strokes",)


def test_equal_labels_are_not_judged():
    table = type("Table", (), {"labels": (1.0, 1.0), "__len__": lambda self: 2})()
    assert check_labels({"train": table}, "tallies", ("strokes",)) == ([], [])
    _, (problem,) = check_labels({"train": table}, "counts", ("label",))
    assert "at least two different values" in str(problem)
    result = SimpleNamespace(
        metrics={"stroke_difference": math.nan, "mean_average_precision": 1.0},
        target="tallies",
        labels=np.ones(2),
        scores=np.ones(2),
        label_names=("strokes",),
    )
    assert undefined_notes(result) == ("stroke_difference is undefined: it has no value on these examples.",)


def test_a_metric_is_tried_on_their_own_labels():
    examples = trial_examples("tallies", 1)
    assert (examples.labels > 0).all() and examples.labels.shape == examples.decisions.shape == (2,)
    assert trial_examples("counts", 1).labels.tolist() == [0.0, 1.0]


def test_contradictory_properties_are_an_error():
    with pytest.raises(TypeError, match="Unfounded must set has_classes or is_numeric if it sets has_stand"):
        type("Unfounded", (Target,), {"has_standard_loss": True})
    with pytest.raises(TypeError, match="Both must not set both has_classes and is_numeric"):
        type("Both", (Target,), {"has_classes": True, "is_numeric": True})
    assert (Tallies().linear_solver, Counts().linear_solver) == (None, None)
    assert [TARGETS[name].linear_solver for name in ("single_label", "multi_label", "regression")] == [
        "logistic_regression",
        "logistic_regression",
        "ridge",
    ]


def test_no_pooling_is_chosen_by_a_solver():
    prepared = SimpleNamespace(data=SimpleNamespace(target="tallies"))
    assert _compare_poolings(prepared, torch.device("cpu")) == "no solver supports the loss of tallies labels"
