"""Tables with one row per event, and tables of histories, as examples of recommendation."""

import pytest
from datasets import Dataset

from hf_finetune.errors import InputError
from hf_finetune.recipe.load import parse_recipe
from hf_finetune.tasks import MODALITIES
from hf_finetune.tasks.items.join import NEW_ITEM, join_log

COLUMNS = {"customer": "who", "time": "day", "item": "film"}
EVENTS = [
    # customer, day of January 2024, item
    ("ann", 1, "a"), ("ann", 2, "b"), ("ann", 3, "c"), ("ann", 20, "d"), ("ann", 21, "a"),
    ("bob", 5, "b"), ("bob", 5, "a"), ("bob", 4, "c"),
    ("cid", 19, "a"), ("cid", 22, "x"),
    ("dee", 3, "a"), ("dee", 4, "e"),
    ("eve", 6, "f"),
]  # fmt: skip
MODALITY = MODALITIES["items"]


def data_of(time="2024-01-10", validation=0.1):
    content = {"task": "next-item", "model": {"new": {}}, "data": {"path": "p"}}
    content["data"]["split"] = {"time": time, "validation": validation}
    return parse_recipe({**content, "stages": [{"name": "all", "train": "all", "epochs": 1}]}).data


def table(rows=EVENTS):
    names = ("who", "day", "film")
    columns = {name: [row[place] for row in rows] for place, name in enumerate(names)}
    columns["day"] = [f"2024-01-{day:02}" if isinstance(day, int) else day for day in columns["day"]]
    return {"train": Dataset.from_dict(columns)}


def examples(dataset):
    names = dataset.features["next_item"].names
    return {row["customer"]: (row["items"], names[row["next_item"]], row[NEW_ITEM]) for row in dataset}


def problems(function, *arguments):
    with pytest.raises(InputError) as caught:
        function(*arguments)
    return [str(problem) for problem in caught.value.problems]


def test_each_split_sees_only_what_is_earlier_than_its_labels():
    joined = join_log(table(), COLUMNS, data_of())
    assert {split: examples(part) for split, part in joined.splits.items()} == {
        "train": {"ann": ("a", "b", "no"), "bob": ("c", "b", "no"), "dee": ("a", "e", "no")},
        "validation": {"ann": ("a b", "c", "no"), "bob": ("c b", "a", "no")},
        "test": {"ann": ("a b c d", "a", "no"), "cid": ("a", "x", "yes")},
    }
    # the items of training come first
    assert joined.splits["test"].features["next_item"].names == ["a", "b", "c", "e", "d", "x"]
    assert joined.columns == {"items": "items", "label": "next_item"}
    assert joined.sources == COLUMNS and joined.is_divided and joined.time is None
    assert joined.notes == (
        "One row per event: 13 events of 5 customers with 7 items, joined to 3 train, 2 validation, 2 test "
        "examples. A test label is a customer's last item from 2024-01-10 on, a validation label the last one before; "
        "training sees only what is earlier than these. 1 test label is not among the items of training (column "
        "new_item).",
    )


def test_without_validation_training_has_all_events_before_the_date():
    joined = join_log(table(), COLUMNS, data_of(validation=0.0))
    assert list(joined.splits) == ["train", "test"]
    assert examples(joined.splits["train"])["ann"] == ("a b", "c", "no")


@pytest.mark.parametrize(
    ("columns", "data", "messages"),
    [
        (
            {"customer": "who"},
            data_of(),
            [
                "data.columns.time must be set for a table with one row per event.",
                "data.columns.item must be set for a table with one row per event.",
            ],
        ),
        (
            COLUMNS | {"label": "film", "items": "film"},
            data_of(),
            [
                "data.columns.items must not be set for a table with one row per event. Got 'film'. Histories are "
                "joined from its rows; a table of histories needs no data.columns.customer.",
                "data.columns.label must not be set for a table with one row per event. Got 'film'. The label is an "
                "item of each customer.",
            ],
        ),
        (
            COLUMNS,
            data_of(time=None),
            [
                "data.split.time must be set for a table with one row per event. Got events from 2024-01-01 to "
                "2024-01-22. Items from this date on test the model."
            ],
        ),
        (
            COLUMNS,
            data_of(time="2024-01-23"),
            [
                "data.split.time must leave a customer with several events of which one is from it. Got 2024-01-23, "
                "with events from 2024-01-01 to 2024-01-22."
            ],
        ),
        (
            COLUMNS,
            data_of(time="2024-01-02"),
            [
                "data.split.time must leave a customer with several events before it. Got 2024-01-02, with events "
                "from 2024-01-01 to 2024-01-22."
            ],
        ),
    ],
)
def test_a_table_that_cannot_be_joined_is_an_error(columns, data, messages):
    assert problems(join_log, table(), columns, data) == messages


def test_an_item_without_a_name_is_an_error():
    rows = [*EVENTS, ("eve", 7, " ")]
    assert problems(join_log, table(rows), COLUMNS, data_of()) == [
        "data.columns.item must name an item in each row. Got row 13: one with an item without a name."
    ]


def test_several_tables_are_an_error():
    assert problems(join_log, {**table(), "test": table()["train"]}, COLUMNS, data_of()) == [
        "data.path must be one table if it has one row per event: it is divided by data.split.time. Got 'train', "
        "'test'."
    ]


def test_rows_to_predict_are_joined_per_customer():
    rows = table()["train"][:]
    joined = dict(MODALITY.join_prediction_rows(rows, COLUMNS, None))
    assert joined["ann"] == {"items": "a b c d a"} and joined["eve"] == {"items": "f"}


def test_tables_of_histories_declare_the_whole_catalogue():
    train = Dataset.from_dict({"items": [["a", "b"], ["c c"]], "next_item": ["b", None], "note": [1, 2]})
    test = Dataset.from_dict({"items": [["a"]], "next_item": ["z"], "note": [3]})
    joined = MODALITY.join_rows({"train": train, "test": test}, {}, data_of())
    assert joined.columns == {"items": "items", "label": "next_item"} and not joined.sources
    declared = joined.splits["train"].features["next_item"].names
    assert declared == ["a", "b", "c_c", "z"] == joined.splits["test"].features["next_item"].names
    assert joined.splits["train"]["next_item"][:] == [1, None]
    assert joined.splits["test"][:] == {"items": [["a"]], "note": [3], "next_item": [3], NEW_ITEM: ["yes"]}


@pytest.mark.parametrize(
    "columns",
    [{"items": ["a b"], "liked": ["b"]}, {"label": ["b"]}, {"items": ["a"], "label": ["[MASK]"]}],
)
def test_other_tables_are_left_as_they_are(columns):
    assert MODALITY.join_rows({"train": Dataset.from_dict(columns)}, {}, data_of()) is None
