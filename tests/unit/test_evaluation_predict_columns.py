"""Columns of the tables for prediction: those of training, those given, and those in the model's config."""

import json

import pytest
from evaluation_helpers import save_bert

from hf_finetune.data.input_columns import INPUT_KEYS, parse_columns
from hf_finetune.errors import InputError
from hf_finetune.evaluation.classifier import load_classifier
from hf_finetune.evaluation.prediction_inputs import open_inputs
from hf_finetune.tasks import MODALITIES

TEXT = MODALITIES["text"]
PAIR = {"text": "premise", "text_pair": "hypothesis", "label": "gold"}
SINGLE = {"text": "review", "text_pair": None, "label": "stars"}


def items_of(tmp_path, content, memory, name="new.csv", **options):
    (tmp_path / name).write_text(content, encoding="utf-8")
    return list(open_inputs([str(tmp_path / name)], TEXT, training_columns=memory, **options).items)


def test_a_pair_is_read_from_the_columns_of_training(tmp_path, caplog):
    (item,) = items_of(tmp_path, "note,hypothesis,premise\nx,second,first\n", PAIR)
    assert item.content == {"text": "first", "text_pair": "second"}
    with caplog.at_level("INFO"):
        (item,) = items_of(tmp_path, "text,hypothesis\nfirst,second\n", PAIR)
    assert item.content == {"text": "first", "text_pair": "second"}
    assert caplog.messages == [
        f"{tmp_path / 'new.csv'}: the column 'premise' of the training data is missing; 'text' is read "
        "instead."
    ]
    (item,) = items_of(tmp_path, "a,b\nfirst,second\n", PAIR, columns={"text": "a", "text_pair": "b"})
    assert item.content == {"text": "first", "text_pair": "second"}


@pytest.mark.parametrize(
    "content", ["premise\nalone\n", "text,other\na,b\n", "a,b\nc,d\n", "hypothesis,x\na,b\n"]
)
def test_half_a_pair_is_refused(tmp_path, content):
    with pytest.raises(InputError) as caught:
        items_of(tmp_path, content, PAIR)
    message = str(caught.value)
    assert (
        "must have the columns 'premise' and 'hypothesis', as the model was trained on pairs of texts."
        in message
    )
    assert message.endswith("Rename two columns, or set --column text=NAME --column text_pair=NAME.")


def test_a_row_without_a_second_text_is_no_single_text(tmp_path):
    whole, half = items_of(tmp_path, "premise,hypothesis\na,b\na,\n", PAIR)
    assert whole.error is None and half.error == "The text is empty."


def test_a_model_of_single_texts_warns_that_it_ignores_the_second(tmp_path, caplog):
    memory = {**SINGLE, "text": "premise"}
    with caplog.at_level("INFO"):
        (item,) = items_of(tmp_path, "premise,hypothesis\na,b\n", memory)
    assert item.content == {"text": "a"}
    place = tmp_path / "new.csv"
    told = f"{place}: the column 'hypothesis' is not read, because the model was trained on single texts."
    assert caplog.messages == [told]
    caplog.clear()
    with caplog.at_level("INFO"):
        items_of(tmp_path, "premise,x\na,b\n", memory, columns={"text_pair": "x"})
    assert caplog.messages == [told.replace("hypothesis", "x")]


def test_a_single_text_is_read_from_the_column_of_training_or_refused(tmp_path, caplog):
    (item,) = items_of(tmp_path, "text,review,comment\na,b,c\n", SINGLE)
    assert item.content == {"text": "b"} and not caplog.messages
    for content in ("text,comment\na,c\n", "id,other\n7,a\n", "other,stars\na,5\n"):
        (item,) = items_of(tmp_path, content, SINGLE)
        assert item.content == {"text": "a"}
    with pytest.raises(InputError) as caught:
        items_of(tmp_path, "comment,reviews\na,b\n", SINGLE)
    assert str(caught.value) == (
        f"{tmp_path / 'new.csv'} must have the column 'review', which the model was trained on. Got columns "
        "'comment', 'reviews'. Nearest: 'reviews'. Rename the column with the texts, or set --column "
        "text=NAME."
    )


@pytest.mark.parametrize(
    ("header", "name"),
    [("id", "007"), ("ID", "007"), ("idx", "007"), ("Id", "007"), ("who", None), ("rowid", None)],
)
def test_examples_keep_the_id_of_their_table(tmp_path, header, name):
    (item,) = items_of(tmp_path, f"{header},text\n007,good\n", None)
    assert item.id == (name or f"{tmp_path / 'new.csv'}:0")


def test_columns_are_named_on_the_command_line():
    assert parse_columns(["text=a question", "text_pair = b=c", "id=PassengerId"]) == {
        "text": "a question", "text_pair": "b=c", "id": "PassengerId",
    }  # fmt: skip
    with pytest.raises(InputError) as caught:
        parse_columns(["texts=a", "text", "label=x", "id=a", "id=b"])
    assert str(caught.value).splitlines() == [
        f"--column must set one of {', '.join(INPUT_KEYS)}. Got 'texts'. Nearest: 'text'.",
        "--column must be KEY=NAME. Got 'text'. For example text=question.",
        f"--column must set one of {', '.join(INPUT_KEYS)}. Got 'label'. "
        f"Known: {', '.join(map(repr, INPUT_KEYS))}.",
        "--column must set id only once. Got 'id=b'.",
    ]


def test_columns_of_a_config_are_checked(tmp_path):
    folder = save_bert(tmp_path)
    config = json.loads((folder / "config.json").read_text())
    for said, read in (
        ({"text": "a", "text_pair": None, "label": "b"}, {"text": "a", "text_pair": None, "label": "b"}),
        ({"text": ["a"], "label": "b"}, None),
        ("text", None),
        ({}, None),
    ):
        (folder / "config.json").write_text(json.dumps({**config, "training_columns": said}))
        assert load_classifier(folder).columns == read
