"""A modality, a task and a label type outside the package work once they are registered."""

import math
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from made_up_data import make_case
from run_helpers import quick_run
from test_recipe_shipped import complaints
from throw_away_target import Counts

from hf_finetune.errors import InputError
from hf_finetune.evaluation.compare import compare_runs
from hf_finetune.evaluation.evaluate_run import evaluate
from hf_finetune.evaluation.predict import predict
from hf_finetune.evaluation.predictions import read_predictions
from hf_finetune.recipe import json_schema, parse_recipe
from hf_finetune.report.page import write_report
from hf_finetune.runs.prepare import plan
from hf_finetune.targets import TARGETS
from hf_finetune.tasks import MODALITIES, TASKS


@pytest.fixture(scope="module")
def counts():
    """Register a label type, and remove it afterwards."""
    TARGETS.add(Counts())
    yield TARGETS["counts"]
    TARGETS.remove("counts")


@pytest.fixture(scope="module")
def case(tmp_path_factory, counts):
    return make_case(tmp_path_factory.mktemp("counts"), next(iter(TASKS.values())), counts)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, case):
    return quick_run(case.recipe, tmp_path_factory.mktemp("run") / "run")


def test_the_recipe_knows_a_new_kind_of_labels(case):
    schema = json_schema()
    assert case.recipe.data.target == "counts"
    assert [*complaints(case.recipe.model_dump(mode="json"), schema, schema)] == []
    content = case.recipe.model_dump(mode="json")
    content["data"]["target"] = "count"
    with pytest.raises(InputError, match=r"or 'counts'\. Got 'count'\. Nearest: 'counts'\."):
        parse_recipe(content)


def test_a_new_kind_of_labels_is_planned_and_trained(case, finished):
    assert [stage.name for stage in plan(case.recipe).plan.stages] == ["head", "all"]
    first, last = (finished.metrics["stages"][index]["validation"]["loss"] for index in (0, -1))
    assert math.isfinite(first) and math.isfinite(last)
    assert [*finished.metrics["test"]][:1] == ["deviance"]


def test_a_new_kind_of_labels_is_evaluated_and_predicted(case, finished):
    again = evaluate(finished.folder)
    assert again.target == "counts"
    assert again.metrics["deviance"] == pytest.approx(finished.metrics["test"]["deviance"])
    stored = read_predictions(finished.folder / "predictions.parquet")
    assert stored.target == "counts"
    assert stored.scores == pytest.approx(again.scores)
    (prediction,) = predict(finished.folder, case.inputs[:1])
    assert prediction.error is None and prediction.label > 0
    (pair,) = compare_runs([finished.folder, finished.folder])
    assert pair.differences[0].metric == "deviance"


def test_a_new_kind_of_labels_is_reported(finished):
    assert "deviance" in write_report(finished.folder).read_text(encoding="utf-8")
    assert "deviance" in (finished.folder / "model" / "README.md").read_text(encoding="utf-8")


def test_a_new_kind_of_labels_refuses_settings_of_another_loss(case):
    content = case.recipe.model_dump(mode="json")
    content["evaluation"]["calibrate"] = True
    content["stages"][0] = {"name": "head", "train": "head", "fit": "ridge"}
    content["stages"][1] |= {"balance": "class_weights", "teacher": str(case.recipe.model.path)}
    with pytest.raises(InputError) as refused:
        plan(parse_recipe(content))
    assert {problem.place for problem in refused.value.problems} == {
        *("evaluation.calibrate", "stages[0].fit", "stages[1].balance", "stages[1].teacher"),
    }


def test_a_new_modality_passes_the_conformance_suite():
    """In its own process, because the fields of recipes depend on the modalities that are known at import."""
    here = Path(__file__).parent
    command = [sys.executable, "-m", "pytest", "-q", "-p", "throw_away_modality", "-p", "no:cacheprovider"]
    command += [str(here / "test_conformance.py"), "-k", "audio and not doctor and not onnx"]
    path = os.pathsep.join([str(here), str(here.parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert re.search(r"2\d passed", done.stdout)


def test_a_modality_that_is_registered_too_late_is_refused():
    known = next(iter(MODALITIES.values()))
    with pytest.raises(ValueError, match=r"registered too late: .* before hf_finetune\.recipe is imported"):
        MODALITIES.add(known)
