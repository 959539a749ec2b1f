"""Division of examples by time, for every modality."""

# ruff: noqa: E501 (error texts are tested whole)

from datetime import UTC, date, datetime, timedelta, timezone

import pytest
from datasets import Dataset

from hf_finetune.data.evaluation_data import load_for_evaluation
from hf_finetune.data.load import Source
from hf_finetune.data.recipe_data import load_data
from hf_finetune.data.split_time import divide_by_time
from hf_finetune.errors import InputError
from hf_finetune.fields.times import parse_time
from hf_finetune.recipe.load import parse_recipe
from hf_finetune.tasks import MODALITIES

TIMES = ["2024-03-01", "2024-01-01", "2024-02-01", "2024-04-01T08:30"]


def source(**columns):
    data = {"text": list("abcd"), "date": TIMES, **columns}
    return Source({"train": Dataset.from_dict(data)}, None, (), untyped_splits=frozenset({"train"}))


def test_later_examples_are_the_test_split():
    divided = divide_by_time(source(), None, "2024-03-01")
    assert {split: dataset["text"][:] for split, dataset in divided.splits.items()} == {
        "train": ["b", "c"],
        "test": ["a", "d"],
    }
    assert divided.notes == (
        "Divided by 'date' at 2024-03-01: 2 earlier examples, and 2 later ones, the test split.",
    )
    assert divided.untyped_splits == {"train", "test"}


def test_texts_in_files_keep_their_names():
    files = {"train": ("a.txt", "b.txt", "c.txt", "d.txt")}
    rows = source().splits
    divided = divide_by_time(Source(rows, None, (), files), "date", "2024-03-01")
    assert divided.files == {"train": ("b.txt", "c.txt"), "test": ("a.txt", "d.txt")}


@pytest.mark.parametrize(
    ("value", "moment"),
    [
        ("1970-01-02", 86_400),
        ("19700102", 86_400),
        (19700102, 86_400),
        (" 1970-01-01T00:01 ", 60),
        ("1970-01-01T01:00:00+01:00", 0),
        (date(1970, 1, 2), 86_400),
        (datetime(1970, 1, 1, 0, 1, tzinfo=UTC), 60),
        (datetime(1970, 1, 1, 2, tzinfo=timezone(timedelta(hours=2))), 0),
    ],
)
def test_times_without_a_zone_are_utc(value, moment):
    assert parse_time(value) == moment


@pytest.mark.parametrize("value", [None, "", "tomorrow", 3.5, True, "2024-02-30", 12])
def test_other_values_are_no_times(value):
    with pytest.raises(ValueError):
        parse_time(value)


@pytest.mark.parametrize(
    ("columns", "column", "moment", "message"),
    [
        ({}, "when", "2024-02-15", "data.columns.time must be a column of the data. Got 'when'. Known: 'text', 'date'."),
        ({"time": TIMES}, None, "2024-02-15", "data.columns.time must be set with data.split.time. Got columns 'date', 'time'."),
        ({"date": [*TIMES[:3], "soon"]}, None, "2024-02-15", "data.columns.time must contain in each row a date or time such as 2024-05-31 or 2024-05-31T12:30. Got 'soon' in row 3."),
        ({}, None, "2023-01-01", "data.split.time must divide the examples; all are on or after it. Got 2023-01-01. The times are from 2024-01-01 to 2024-04-01T08:30."),
        ({}, None, "2025-01-01", "data.split.time must divide the examples; all are before it. Got 2025-01-01. The times are from 2024-01-01 to 2024-04-01T08:30."),
    ],
)  # fmt: skip
def test_a_division_that_is_not_possible_is_an_error(columns, column, moment, message):
    with pytest.raises(InputError) as caught:
        divide_by_time(source(**columns), column, moment)
    assert [str(problem) for problem in caught.value.problems] == [message]


@pytest.mark.parametrize("split", ["validation", "test"])
def test_data_that_is_divided_already_is_an_error(split):
    splits = dict.fromkeys(("train", split), source().splits["train"])
    with pytest.raises(InputError) as caught:
        divide_by_time(Source(splits, None, ()), None, "2024-02-15")
    assert str(caught.value.problems[0]) == (
        f"data.split.time must not be set for data with a {split} split. Got 2024-02-15. Its splits: 'train', '{split}'."
    )


def recipe(path, split):
    return {
        "task": "text-classification",
        "model": "m",
        "data": {"path": str(path), "split": split},
        "stages": [{"train": "head", "epochs": 1, "lr": 0.1}],
    }


def test_texts_are_divided_by_time(tmp_path):
    lines = [f"text {row},{('good', 'bad')[row % 2]},2024-{row + 1:02}-01" for row in range(12)]
    (tmp_path / "texts.csv").write_text("\n".join(["text,label,date", *lines]), encoding="utf-8")
    data = load_data(parse_recipe(recipe(tmp_path / "texts.csv", {"time": "2024-09-01", "validation": 0.25})))
    assert data.test["text"][:] == ["text 8", "text 9", "text 10", "text 11"]
    assert sorted([*data.train["text"], *data.validation["text"]]) == [f"text {row}" for row in range(8)]
    assert len(data.validation) == 2


def test_recipes_have_valid_times():
    assert parse_recipe(recipe("d", {"time": date(2024, 1, 31)})).data.split.time == "2024-01-31"
    with pytest.raises(InputError) as caught:
        parse_recipe(recipe("d", {"time": "spring"}))
    assert [str(problem) for problem in caught.value.problems] == [
        "data.split.time must be a date or time in ISO 8601. Got 'spring'. For example 2024-05-31."
    ]


def test_folds_are_of_the_earlier_examples(tmp_path):
    lines = [f"text {row},{('good', 'bad')[row % 2]},2024-{row + 1:02}-01" for row in range(12)]
    (tmp_path / "texts.csv").write_text("\n".join(["text,label,date", *lines]), encoding="utf-8")
    split = {"time": "2024-09-01", "validation": 0, "fold": "1/2"}
    data = load_data(parse_recipe(recipe(tmp_path / "texts.csv", split)))
    assert sorted([*data.train["text"], *data.test["text"]]) == [f"text {row}" for row in range(8)]
    assert len(data.test) == 4


def test_other_data_is_evaluated_without_its_times(tmp_path):
    (tmp_path / "other.csv").write_text("text,label\nfine,good\npoor,bad\n", encoding="utf-8")
    spec = parse_recipe(recipe("d", {"time": "2024-09-01"})).data
    loaded = load_for_evaluation(
        str(tmp_path / "other.csv"),
        modality=MODALITIES["text"],
        target="single_label",
        label_names=("bad", "good"),
        spec=spec,
    )
    assert loaded["text"][:] == ["fine", "poor"]
