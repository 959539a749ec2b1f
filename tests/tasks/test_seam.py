"""A modality, a task and a label type outside the package work once they are registered."""

import math
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from launching import fork_doctor_workers
from made_up_data import make_case
from run_helpers import quick_run
from test_recipe_shipped import complaints
from throw_away_target import Counts, Tallies

from hf_finetune.doctor.check_suite import check_suites, run_check
from hf_finetune.errors import InputError
from hf_finetune.evaluation.compare import compare_runs
from hf_finetune.evaluation.evaluate_run import evaluate
from hf_finetune.evaluation.predict import predict
from hf_finetune.evaluation.predictions import read_predictions
from hf_finetune.recipe.load import json_schema, parse_recipe
from hf_finetune.report.page import write_report
from hf_finetune.runs.prepare import plan_stages
from hf_finetune.targets import TARGETS
from hf_finetune.tasks import MODALITIES, TASKS


@pytest.fixture(scope="module")
def register():
    """Return the function that registers a label type, and remove them afterwards."""
    added = []

    def add(kind):
        TARGETS.add(kind)
        added.append(kind.name)
        return kind

    yield add
    for name in added:
        TARGETS.remove(name)


@pytest.fixture(scope="module", params=[Counts, Tallies], ids=lambda kind: kind.name)
def kind(request, register):
    """Register a label type: one of numbers, and one of neither classes nor numbers."""
    return register(request.param())


@pytest.fixture(scope="module")
def case(tmp_path_factory, kind):
    return make_case(tmp_path_factory.mktemp(kind.name), next(iter(TASKS.values())), kind)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, case):
    return quick_run(case.recipe, tmp_path_factory.mktemp("run") / "run")


def test_the_recipe_knows_a_new_kind_of_labels(kind, case):
    schema = json_schema()
    assert case.recipe.data.target == kind.name
    assert [*complaints(case.recipe.model_dump(mode="json"), schema, schema)] == []
    content = case.recipe.model_dump(mode="json")
    content["data"]["target"] = f"{kind.name}s"
    with pytest.raises(InputError, match=rf"or '\w+'\. Got '{kind.name}s'\. Nearest: '{kind.name}'\."):
        parse_recipe(content)


def test_a_new_kind_of_labels_is_planned_and_trained(kind, case, finished):
    assert [stage.name for stage in plan_stages(case.recipe).plan.stages] == ["head", "all"]
    first, last = (finished.metrics["stages"][index]["validation"]["loss"] for index in (0, -1))
    assert math.isfinite(first) and math.isfinite(last)
    assert [*finished.metrics["test"]][:1] == [kind.default_metrics[0]]


def test_a_new_kind_of_labels_is_evaluated_and_predicted(kind, case, finished):
    metric = kind.default_metrics[0]
    again = evaluate(finished.folder)
    assert again.target == kind.name
    assert again.metrics[metric] == pytest.approx(finished.metrics["test"][metric])
    stored = read_predictions(finished.folder / "predictions.parquet")
    assert stored.target == kind.name
    assert stored.labels.tolist() == again.labels.tolist()
    assert stored.scores == pytest.approx(again.scores)
    (prediction,) = predict(finished.folder, case.inputs[:1])
    assert prediction.error is None
    assert prediction.label > 0 if kind.is_numeric else set(prediction.label) <= {"x"}
    (pair,) = compare_runs([finished.folder, finished.folder])
    assert pair.differences[0].metric == metric


def test_a_new_kind_of_labels_is_reported(kind, finished):
    metric = kind.default_metrics[0]
    assert metric in write_report(finished.folder).read_text(encoding="utf-8")
    assert metric in (finished.folder / "model" / "README.md").read_text(encoding="utf-8")


def test_a_new_kind_of_labels_passes_the_doctor(case, tmp_path, monkeypatch):
    fork_doctor_workers(monkeypatch)  # a process that is started would not know the label type
    (suite,) = check_suites(case.recipe, tmp_path)
    results = [run_check(check, tmp_path) for check in suite.checks]
    assert [result for result in results if result.state == "fail"] == []


def test_a_new_kind_of_labels_refuses_settings_of_another_loss(case):
    content = case.recipe.model_dump(mode="json")
    content["evaluation"]["calibrate"] = True
    content["stages"][0] = {"name": "head", "train": "head", "fit": "ridge"}
    content["stages"][1] |= {"balance": "class_weights", "teacher": str(case.recipe.model.path)}
    with pytest.raises(InputError) as refused:
        plan_stages(parse_recipe(content))
    assert {problem.place for problem in refused.value.problems} == {
        *("evaluation.calibrate", "stages[0].fit", "stages[1].balance", "stages[1].teacher"),
    }
    assert not any("ridge for" in str(problem) for problem in refused.value.problems)


def test_a_new_modality_passes_the_conformance_suite():
    """In its own process, because the fields of recipes depend on the modalities that are known at import."""
    here = Path(__file__).parent
    command = [sys.executable, "-m", "pytest", "-q", "-p", "throw_away_modality", "-p", "no:cacheprovider"]
    command += [str(here / "test_conformance.py"), "-k", "vibration and not onnx"]
    path = os.pathsep.join([str(here), str(here.parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert re.search(r"\b3\d passed", done.stdout)


def test_a_modality_that_is_registered_too_late_is_refused():
    known = next(iter(MODALITIES.values()))
    with pytest.raises(ValueError, match=r"registered too late: .* before the schema of recipes is imported"):
        MODALITIES.add(known)


PLUGIN = """
from hf_finetune.targets.regression import Regression
from hf_finetune.tasks import TASKS, Task

FIRST = next(iter(TASKS.values()))
TASK = Task("dish-classification", "Dish Classification", FIRST.modality, FIRST.auto_model, FIRST.suffixes)


class Shares(Regression):
    name = "shares"
"""


def install_plugin(folder, tasks):
    """Write a package with entry points, as an installer would, and return the environment that finds it."""
    (folder / "dishes.py").write_text(PLUGIN)
    installed = folder / "dishes-1.0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: dishes\nVersion: 1.0\n")
    (installed / "entry_points.txt").write_text(
        f"[hf_finetune.tasks]\n{tasks}\n[hf_finetune.targets]\nshares = dishes:Shares\n"
    )
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), *map(str, sys.path)])}


def print_schema(environment):
    command = [sys.executable, "-m", "hf_finetune", "recipes", "schema"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_the_tasks_and_label_types_of_an_installed_package_are_registered(tmp_path):
    done = print_schema(install_plugin(tmp_path, "dishes = dishes:TASK"))
    assert done.returncode == 0, done.stderr
    assert '"dish-classification"' in done.stdout
    assert '"shares"' in done.stdout


REGISTERED = """
import sys
from hf_finetune.evaluation.classifier import load_classifier
from hf_finetune.evaluation.predictions import read_predictions
from hf_finetune.targets import TARGETS
from hf_finetune.tasks import TASKS
for read in (load_classifier, read_predictions):
    try:
        read("nothing-here.parquet")
    except ValueError:
        pass
    print(sorted(({"dish-classification", "shares"} & {*TASKS, *TARGETS})), "hf_finetune.recipe.schema" in sys.modules)
"""


def test_models_and_predictions_of_an_installed_task_are_read_without_the_schema_of_recipes(tmp_path):
    environment = install_plugin(tmp_path, "dishes = dishes:TASK")
    command = [sys.executable, "-c", REGISTERED]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["['dish-classification', 'shares'] False"] * 2


def test_an_installed_package_whose_task_cannot_be_imported_is_named(tmp_path):
    done = print_schema(install_plugin(tmp_path, "dishes = dishes:TASKK"))
    assert done.returncode != 0
    assert "The entry point dishes = dishes:TASKK of the package dishes cannot be imported" in done.stderr
    assert "Repair or uninstall the package." in done.stderr
