"""Texts that are longer than a model takes are counted, where they are tokenized."""

import numpy as np
import pytest
from datasets import ClassLabel
from evaluation_helpers import save_bert
from multitask_data import text_recipe, texts_by_length
from test_data_texts import texts, tokenizer

from hf_finetune.evaluation.classifier import iter_logits, load_classifier, logit_batches
from hf_finetune.evaluation.evaluate import evaluate_model
from hf_finetune.recipe.load import parse_recipe
from hf_finetune.runs.planner import plan
from hf_finetune.runs.run import run
from hf_finetune.tasks.text.tokenization import TRUNCATED, tokenize
from hf_finetune.tasks.text.truncation import Truncation, TruncationCounter, find_truncated


class PythonTokenizer:
    """A tokenizer that does not report truncation, like those written in Python."""

    def __init__(self):
        self.fast = tokenizer()
        self.requested = []

    def __call__(self, *batch, **options):
        self.requested.append(batch)
        return dict(self.fast(*batch, **options))


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize(
    ("columns", "length", "expected"),
    [
        ({"text": ["one two three", "one two", "one"]}, 4, [True, False, False]),
        ({"text": ["one two", "one"], "text_pair": ["three four", "two"]}, 6, [True, False]),
        ({"text": ["one", "one"], "text_pair": ["three four five", "two three"]}, 6, [True, False]),
    ],
)
def test_truncated_texts_are_marked(columns, length, expected, side):
    marked = tokenize(texts(**columns), tokenizer(), length, side, cut=True)
    assert marked[TRUNCATED][:] == expected
    assert TRUNCATED not in tokenize(texts(**columns), tokenizer(), length, side).column_names
    slow, batch = PythonTokenizer(), list(columns.values())
    encoded = slow(*batch, truncation=True, max_length=length)
    assert find_truncated(encoded, slow, batch, length) == expected


def test_a_tokenizer_without_overflow_information_repeats_only_full_examples():
    slow, batch = PythonTokenizer(), [["one two three", "one two", "one"]]
    encoded = slow(*batch, truncation=True, max_length=4)
    slow.requested.clear()
    find_truncated(encoded, slow, batch, 4)
    assert slow.requested == [("one two three",), ("one two",)]


def truncation(**changes):
    fields = {"longest": 93, "length": 64, "side": "right", "limit": 512}
    cut = {"train": np.array([True, True, False]), "validation": np.array([False])}
    return Truncation(**{"cut": cut, **fields, **changes})


@pytest.mark.parametrize(
    ("changes", "note"),
    [
        (
            {},
            "Texts of more than 64 tokens are truncated on the right: 2 of 3 in train (66.7 %); the longest "
            "has 93 tokens. Increase data.max_length, at most to the checkpoint's 512, or "
            "data.truncation_side: left if the end of a text matters more.",
        ),
        (
            {"limit": 64, "side": "left", "pairs": True},
            "Pairs of texts of more than 64 tokens are truncated on the left: 2 of 3 in train (66.7 %); the "
            "longest has 93 tokens. The checkpoint accepts no more tokens; set data.truncation_side: right "
            "if the beginning of a text matters more.",
        ),
        (
            {"limit": None},
            "Texts of more than 64 tokens are truncated on the right: 2 of 3 in train (66.7 %); the longest "
            "has 93 tokens. Increase data.max_length, or data.truncation_side: left if the end of a text "
            "matters more.",
        ),
        ({"cut": {"train": np.array([False, False])}}, None),
    ],
)
def test_the_note_reports_count_split_and_fix(changes, note):
    assert truncation(**changes).note() == note


def test_of_a_fold_its_own_examples_are_counted():
    fold = truncation().of_rows({"train": [2], "validation": [0], "test": [1]})
    assert fold.note() is None


def recipe(folder, rows, **data):
    save_bert(folder / "bert")
    lines = [f"{text},{label}" for text, label in rows]
    (folder / "reviews.csv").write_text("\n".join(["text,label", *lines, ""]), encoding="utf-8")
    return parse_recipe(
        {
            "task": "text-classification",
            "model": str(folder / "bert"),
            "data": {"path": str(folder / "reviews.csv"), **data},
            "stages": [{"name": "head", "train": "head", "epochs": 1, "lr": 1e-2}],
            "evaluation": {"linear_probe": None},
        }
    )


def rows(words):
    return [(f"{'very ' * words}{label} {index}", label) for label in ("bad", "good") for index in range(10)]


NOTE = (
    "Texts of more than 16 tokens are truncated on the right: 16 of 16 in train (100 %), 2 of 2 in "
    "validation (100 %); the longest has 24 tokens. The checkpoint accepts no more tokens; set "
    "data.truncation_side: left if the end of a text matters more."
)


def test_a_plan_reports_truncated_texts(tmp_path):
    assert NOTE in plan(recipe(tmp_path, rows(20))).notes


def test_a_plan_reports_the_possible_length(tmp_path):
    notes = plan(recipe(tmp_path, rows(5), max_length=6)).notes
    assert any("Increase data.max_length, at most to the checkpoint's 16, or" in note for note in notes)


def test_a_plan_without_truncated_texts_does_not_mention_them(tmp_path):
    assert not any("tokens are truncated" in note for note in plan(recipe(tmp_path, rows(2))).notes)


@pytest.mark.slow
def test_a_run_saves_the_note_and_its_evaluation_counts_truncated_texts_too(tmp_path, caplog):
    caplog.set_level("INFO", "hf_finetune")
    run(recipe(tmp_path, rows(20)), tmp_path / "run")
    assert NOTE in caplog.messages
    assert (
        "Test split: 2 of 2 texts were truncated on the right: the model accepts at most 16 tokens."
    ) in caplog.messages
    assert "16 of 16 in train (100 %)" in (tmp_path / "run" / "data.json").read_text(encoding="utf-8")
    assert "16 of 16 in train (100 %)" in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("batch_size", [1, 4])
def test_predicting_counts_the_texts_that_are_cut(tmp_path, batch_size):
    classifier = load_classifier(save_bert(tmp_path), batch_size=batch_size)
    cut = TruncationCounter()
    examples = ["good " * 14, "bad", "good " * 15, {"text": "good " * 9, "text_pair": "bad " * 9}]
    logits = [row for batch in logit_batches(classifier, examples, cut) for row in batch]
    assert np.stack(logits) == pytest.approx(np.stack(list(iter_logits(classifier, examples))))
    assert cut.sentences() == [
        "2 of 4 texts were truncated on the right: the model accepts at most 16 tokens."
    ]


def test_nothing_is_said_where_no_text_is_cut(tmp_path):
    cut = TruncationCounter()
    list(logit_batches(load_classifier(save_bert(tmp_path)), ["good", "bad"], cut))
    assert cut.sentences() == []


def test_an_evaluation_counts_the_texts_that_are_cut(tmp_path):
    classifier = load_classifier(save_bert(tmp_path))
    classes = ClassLabel(names=["bad", "good"])
    data = texts(text=["good " * 20, "bad"], feature=classes)
    assert evaluate_model(classifier, data).notes == (
        "1 of 2 texts was truncated on the right: the model accepts at most 16 tokens.",
    )


def test_each_of_several_tasks_reports_its_own_texts(tmp_path):
    checkpoint = save_bert(tmp_path / "bert")
    lines = [f"{text},{label}" for text, label in rows(20)]
    (tmp_path / "long.csv").write_text("\n".join(["text,label", *lines, ""]), encoding="utf-8")
    words = texts_by_length(tmp_path / "words.csv")
    notes = plan(text_recipe(tmp_path / "long.csv", words, checkpoint)).notes
    (note,) = (note for note in notes if "truncated on" in note)
    assert note.startswith(
        "type: Texts of more than 16 tokens are truncated on the right: 12 of 12 in train (100 %), "
    )
