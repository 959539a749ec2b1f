"""Examples for the calibration of an export: only a split that does not exist is skipped."""

import json
from types import SimpleNamespace

import pytest

from hf_finetune.errors import InputError
from hf_finetune.publishing.export import _calibration_examples
from hf_finetune.tasks import MODALITIES


@pytest.fixture
def checkpoint(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}", encoding="utf-8")
    return folder


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    return folder


def write(path, *rows):
    lines = [json.dumps({"text": text, "label": label}) for text, label in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def calibration_texts(checkpoint, data):
    classifier = SimpleNamespace(
        modality=MODALITIES["text"], target="single_label", label_names=("neg", "pos"), columns=None
    )
    return _calibration_examples(checkpoint, classifier, str(data))["text"][:]


def test_the_validation_split_calibrates_and_without_one_the_training_split(checkpoint, data):
    write(data / "train.jsonl", ("of train", "pos"))
    assert calibration_texts(checkpoint, data) == ["of train"]
    write(data / "validation.jsonl", ("of validation", "neg"))
    assert calibration_texts(checkpoint, data) == ["of validation"]


def test_data_with_neither_is_refused(checkpoint, data):
    write(data / "test.jsonl", ("of test", "pos"))
    with pytest.raises(InputError) as caught:
        calibration_texts(checkpoint, data)
    assert str(caught.value) == (
        f"{data} must have a validation or training split, which int8 quantization needs for calibration."
    )


def test_an_unusable_split_is_reported_and_not_taken_for_a_missing_one(checkpoint, data):
    write(data / "train.jsonl", ("of train", "pos"))
    write(data / "validation.jsonl", ("of validation", "other"))
    with pytest.raises(InputError) as caught:
        calibration_texts(checkpoint, data)
    assert str(caught.value) == (
        "Label 'other' in 'validation:0' must be a class of the model. Known: 'neg', 'pos'."
    )


def test_unreadable_data_is_reported_and_not_taken_for_a_missing_split(checkpoint, data):
    (data / "train.jsonl").write_text('{"text": "cut o', encoding="utf-8")
    with pytest.raises(InputError) as caught:
        calibration_texts(checkpoint, data)
    assert "train.jsonl" in str(caught.value) and "calibration" not in str(caught.value)
