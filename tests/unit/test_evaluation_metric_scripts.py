"""Metrics that a script of the package evaluate computes."""

import warnings

import evaluate
import numpy as np
import pytest

from hf_finetune.errors import InputError
from hf_finetune.evaluation.metrics import check_metric_names, compute_metrics
from hf_finetune.targets.scored_examples import ScoredExamples


@pytest.fixture(autouse=True)
def strict(monkeypatch):
    monkeypatch.setattr(evaluate.config, "HF_EVALUATE_OFFLINE", True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


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
    """Write a metric script."""

    def write(name, result):
        path = tmp_path / f"{name}.py"
        path.write_text(SCRIPT.format(result=result))
        return str(path)

    return write


def test_a_custom_script_is_computed_with_the_other_metrics(script):
    name = script("share", '{"share": right / len(references)}')
    check_metric_names([name], "single_label", trust_remote_code=True)
    scores = np.array([[0.7, 0.3], [0.1, 0.9], [0.3, 0.7], [0.8, 0.2]])
    examples = ScoredExamples(np.array([0, 0, 1, 1]), scores, "single_label")
    found = compute_metrics(["accuracy", name], examples)
    assert found == {"accuracy": 0.5, name: 0.5}


def test_a_failing_script_is_reported_before_training(script):
    several = script("several", '{"right": right, "wrong": len(references) - right}')
    failing = script("failing", "1 / 0")
    with pytest.raises(InputError) as caught:
        check_metric_names([several, failing], "single_label", place="stages[0].best", trust_remote_code=True)
    rule = "cannot be computed from predictions and references of single_label data"
    assert str(caught.value) == (
        f"stages[0].best[0] {rule}. Got {several!r}. ValueError: it returns several values: 'right', 'wrong'.\n"
        f"stages[0].best[1] {rule}. Got {failing!r}. ZeroDivisionError: division by zero."
    )


def test_a_script_that_does_not_load_is_reported(tmp_path, script):
    broken = tmp_path / "broken.py"
    broken.write_text("import no_such_package_at_all\n")
    with pytest.raises(InputError) as caught:
        check_metric_names([str(broken)], "single_label", trust_remote_code=True)
    assert str(caught.value).startswith(
        f"metrics[0] cannot be loaded by evaluate.load. Got {str(broken)!r}. ImportError: "
    )
