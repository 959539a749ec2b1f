import json
import logging

import datasets
import pytest
from datasets import ClassLabel

from hf_finetune.data.evaluation_data import load_for_evaluation
from hf_finetune.errors import InputError
from hf_finetune.recipe.data import DataSpec
from hf_finetune.tasks import MODALITIES

SKIP = DataSpec(path="data", on_error="skip")


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
    monkeypatch.setattr(datasets.config, "HF_UPDATE_DOWNLOAD_COUNTS", False)  # a request for each load


def write(path, *rows):
    path.write_text("".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in rows))


def load(path, label_names=("neg", "pos"), target="single_label", **options):
    return load_for_evaluation(
        str(path), modality=MODALITIES["text"], target=target, label_names=label_names, **options
    )


def error_text(path, **options):
    with pytest.raises(InputError) as error:
        load(path, **options)
    return str(error.value)


def test_labels_are_encoded_as_the_models(tmp_path):
    write(tmp_path / "a.jsonl", ("good", "pos"), ("fine", "pos"))
    data = load(tmp_path, label_names=("other", "pos", "neg"))
    assert data.features["label"] == ClassLabel(names=["other", "pos", "neg"])
    assert data["label"][:] == [1, 1]
    assert data["id"][:] == ["train:0", "train:1"]
    assert set(data.column_names) == {"id", "text", "label"}


def test_test_comes_first_unless_it_has_no_labels(tmp_path):
    for split in ("train", "dev", "test"):
        write(tmp_path / f"{split}.jsonl", (split, "pos"), ("same", "neg"))
    assert load(tmp_path)["text"][0] == "test"
    assert load(tmp_path, split="train")["text"][0] == "train"
    write(tmp_path / "test.jsonl", ("test", None))
    assert load(tmp_path)["text"][0] == "dev"
    assert error_text(tmp_path, split="test") == (
        "The label column must contain a label in every row. Got missing labels in 'test:0'. Label these "
        "rows or remove them."
    )


def test_an_unknown_split(tmp_path):
    write(tmp_path / "test.jsonl", ("a", "pos"))
    assert error_text(tmp_path, split="validation") == (
        "The split must exist in the data. Got 'validation'. Known: 'test'."
    )


def test_unknown_labels_and_empty_texts_are_reported_together(tmp_path):
    write(tmp_path / "test.jsonl", ("a", "possible"), ("b", "pos"), (" ", "neg"))
    assert error_text(tmp_path) == (
        "Label 'possible' in 'test:0' must be a class of the model. Known: 'neg', 'pos'.\n"
        "test:2 must contain text. Got an empty text. Replace or remove it, or set data.on_error: skip."
    )


def test_skipped_files_are_logged(tmp_path, caplog):
    write(tmp_path / "test.jsonl", ("a", "pos"), (" ", "neg"))
    with caplog.at_level(logging.INFO, "hf_finetune"):
        data = load(tmp_path, spec=SKIP)
    assert data["text"][:] == ["a"]
    assert caplog.messages == [
        "Evaluating on the test split: 1 examples.",
        "Columns inferred: text from 'text', label from 'label'.",
        "'test:1' was skipped: an empty text.",
    ]


def test_nothing_left_to_evaluate(tmp_path):
    write(tmp_path / "test.jsonl", (" ", "neg"))
    assert error_text(tmp_path, spec=SKIP) == "The test split must not be empty."


def test_continuous_targets(tmp_path):
    write(tmp_path / "test.jsonl", ("a", 1), ("b", 2))
    assert load(tmp_path, target="regression", label_names=("label",))["label"][:] == [1.0, 2.0]


def test_many_unknown_labels_are_one_problem(tmp_path):
    write(tmp_path / "test.jsonl", *((f"text {row}", f"label-{row}") for row in range(58)))
    shown = ", ".join(f"'label-{row}'" for row in range(8))
    assert error_text(tmp_path) == (
        f"Labels must be classes of the model. Got {shown} and 50 more. Known: 'neg', 'pos'."
    )


def test_the_columns_of_training_are_used_if_the_data_has_them(tmp_path, caplog):
    memory = {"text": "premise", "text_pair": "hypothesis", "label": "gold"}
    rows = [{"premise": "a", "hypothesis": "b", "text": "no", "gold": "pos", "label": "neg"}]
    (tmp_path / "a.jsonl").write_text(json.dumps(rows[0]) + "\n")
    data = load(tmp_path, training_columns=memory)
    assert (data["text"][:], data["text_pair"][:], data["label"][:]) == (["a"], ["b"], [1])
    single = load(tmp_path, training_columns={**memory, "text_pair": None})
    assert "text_pair" not in single.column_names
    assert "the column 'hypothesis' is not read, because the model was trained on single texts" in caplog.text
    named = load(
        tmp_path, training_columns=memory, named={"text": "hypothesis", "text_pair": "text", "label": "label"}
    )
    assert (named["text"][:], named["text_pair"][:], named["label"][:]) == (["b"], ["no"], [0])
    (tmp_path / "a.jsonl").write_text('{"text": "a", "label": "pos"}\n')
    assert "must have the columns 'premise' and 'hypothesis'" in error_text(tmp_path, training_columns=memory)
    assert load(tmp_path, training_columns={**memory, "text_pair": None})["label"][:] == [1]
