"""Comparison of a model with its exported version."""

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features, Image, Value
from PIL import Image as PillowImage

from hf_finetune.evaluation.classifier import Classifier
from hf_finetune.evaluation.evaluate import model_examples
from hf_finetune.publishing import parity
from hf_finetune.publishing.exported_pipeline import ExportedPipeline
from hf_finetune.publishing.parity import compare_models, median_milliseconds, weight_bytes
from hf_finetune.targets.decision_rule import DEFAULT_RULE, DecisionRule

NAMES = ("bad", "good")
DATA = Dataset.from_dict(
    {"id": list("abcd"), "text": ["0", "1", "2", "3"], "label": [0, 0, 1, 1]},
    features=Features({"id": Value("string"), "text": Value("string"), "label": ClassLabel(names=NAMES)}),
)


def says(logits, target="single_label", rule=DEFAULT_RULE, names=NAMES):
    """Return a classifier that gives the third row of logits for the text "2"."""
    rows = np.asarray(logits, dtype=np.float32)
    pipe = ExportedPipeline(
        prepare=lambda texts: np.array([int(text["text"]) for text in texts]),
        forward=lambda numbers: rows[numbers],
    )
    return Classifier(pipe, "text-classification", target, names, 3, rule=rule)


def test_two_models_are_compared_by_hand():
    before = says([[2, 0], [1, 0], [0, 1], [0, 4]])
    after = says([[2, 0], [0.5, 1], [0, 1], [0, 3.5]])
    found = compare_models(before, after, DATA)
    assert found.examples == 4
    assert found.largest_difference == 1.0
    assert found.largest_logit == 4.0
    assert found.prediction_agreement == 0.75
    assert (found.original_metrics["accuracy"], found.exported_metrics["accuracy"]) == (1.0, 0.75)


def test_several_labels_are_the_same_answer_only_if_all_are():
    labels = DATA.remove_columns("label").add_column("label", [[0], [0], [1], [0, 1]])
    before = says([[1, -1], [1, -1], [-1, 1], [1, 1]], "multi_label", rule=DecisionRule((0.5, 0.5)))
    after = says([[1, -1], [1, 1], [1, -1], [1, 1]], "multi_label")
    found = compare_models(before, after, labels)
    assert found.prediction_agreement == 0.5
    assert (found.original_metrics["exact_match"], found.exported_metrics["exact_match"]) == (1.0, 0.5)


def test_continuous_targets_have_no_decisions():
    amounts = DATA.remove_columns("label").add_column("label", [0.0, 1.0, 2.0, 3.0])
    before = says([[0], [1], [2], [3]], "regression", names=("label",))
    after = says([[0], [1], [2], [5]], "regression", names=("label",))
    found = compare_models(before, after, amounts)
    assert found.prediction_agreement is None
    assert (found.original_metrics["mae"], found.exported_metrics["mae"]) == (0.0, 0.5)


def test_time_is_the_median_without_the_warm_up(monkeypatch):
    calls = []
    ticks = iter([0.0, 9.0, 10.0, 10.002, 20.0, 20.001])
    monkeypatch.setattr(parity, "perf_counter", lambda: next(ticks))
    assert median_milliseconds(lambda: calls.append(1), repeats=3, warm_up=2) == pytest.approx(2.0)
    assert len(calls) == 5


def test_bytes_are_those_of_the_files_that_are_there(tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"12345")
    (tmp_path / "model.onnx.data").write_bytes(b"123")
    assert weight_bytes(*(tmp_path / name for name in ("model.onnx", "model.onnx.data", "model.pt2"))) == 8


def test_examples_have_the_input_format_of_models():
    pairs = DATA.add_column("text_pair", list("wxyz"))
    assert list(model_examples(pairs, limit=2)) == [
        {"text": "0", "text_pair": "w"},
        {"text": "1", "text_pair": "x"},
    ]
    clear = PillowImage.new("RGBA", (4, 4), (200, 0, 0, 0))
    images = Dataset.from_dict({"image": [clear]}, features=Features({"image": Image()}))
    (image,) = model_examples(images)
    assert (image.mode, image.getpixel((0, 0))) == ("RGB", (255, 255, 255))
