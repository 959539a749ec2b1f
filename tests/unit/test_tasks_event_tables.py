"""Tables with one row per event: joining, labels, evaluation and prediction."""

# ruff: noqa: E501 (error texts are tested whole)

from types import SimpleNamespace

import pytest
from datasets import Dataset

from hf_finetune.data.evaluation_data import load_for_evaluation
from hf_finetune.errors import InputError
from hf_finetune.recipe.load import parse_recipe
from hf_finetune.tasks import MODALITIES
from hf_finetune.tasks.events.log import join_log

EVENTS = MODALITIES["events"]
TEXT = "since=30 buy amount=11.77 gap=26 buy amount=29.33"


LOG = {
    "who": ["a", "b", "a", "a", "b", "c"],
    "when": ["2024-01-01", "2024-01-10", "2024-01-31", "2024-02-20", "2024-03-05", "2024-03-06"],
    "what": ["view", "buy", "buy", "buy", "view", "buy"],
    "paid": ["", "5", "7.5", "1", None, "2"],
}
COLUMNS = {"customer": "who", "time": "when", "kind": "what", "amount": "paid", "label": None}


def joined(log=LOG, columns=COLUMNS, weeks=4, kind=None, time="2024-02-15", outcome=True, decimal=None):
    spec = SimpleNamespace(weeks=weeks, kind=kind) if outcome else None
    data = SimpleNamespace(decimal=decimal, outcome=spec, split=SimpleNamespace(time=time))
    return join_log({"train": Dataset.from_dict(log)}, {**dict.fromkeys(COLUMNS), **columns}, data)


def test_no_history_has_an_event_on_or_after_its_date():
    result = joined(weeks=2)
    assert result.splits["train"].to_list() == [
        {
            "customer": "a",
            "events": "since=1 buy amount=7.5 gap=30 view",
            "label": "no",
            "time": "2024-02-01",
        },
        {"customer": "b", "events": "since=22 buy amount=5", "label": "no", "time": "2024-02-01"},
        {
            "customer": "a",
            "events": "since=15 buy amount=7.5 gap=30 view",
            "label": "yes",
            "time": "2024-02-15",
        },
        {"customer": "b", "events": "since=36 buy amount=5", "label": "no", "time": "2024-02-15"},
    ]
    assert (result.time, result.columns) == ("time", {"events": "events", "label": "label"})
    assert result.sources == {"customer": "who", "time": "when", "kind": "what", "amount": "paid"}
    assert result.notes == (
        "One row per event: 6 events of 3 customers. Training histories end before 2024-02-01, test histories before 2024-02-15; the label is yes if any event follows within 2 weeks. Customers can be in both splits, at different times.",
    )


def test_the_label_can_require_a_kind_of_event():
    later = {**LOG, "what": ["view", "buy", "buy", "view", "view", "buy"]}
    for kind, labels in ((None, ["yes", "no"]), ("buy", ["no", "no"])):
        rows = joined(later, weeks=2, kind=kind).splits["train"].to_list()
        assert [row["label"] for row in rows if row["time"] == "2024-02-15"] == labels


def test_the_label_can_be_a_column():
    log = {**LOG, "stays": ["y", "n", "y", "y", "n", "y"]}
    result = joined(log, {**COLUMNS, "label": "stays"}, outcome=False, time=None)
    assert result.time is None and result.columns == {"events": "events", "label": "stays"}
    assert result.splits["train"]["stays"][:] == ["y", "n", "y"]
    assert result.splits["train"]["events"][1] == "since=1 view gap=55 buy amount=5"


@pytest.mark.parametrize("values", [["1", None, "0"], [1, None, 0], [["x", "y"], None, ["z"]]], ids=str)
@pytest.mark.parametrize("name", ["stays", "events", "customer", "time"])
def test_labels_keep_their_values(values, name):
    log = {**LOG, name: [values["abc".index(customer)] for customer in LOG["who"]]}
    result = joined(log, {**COLUMNS, "label": name}, outcome=False, time=None)
    column = result.columns["label"]
    assert (result.time, column) == (None, "stays" if name == "stays" else "label")
    labels = result.splits["train"][column][:]
    assert labels == values and [type(label) for label in labels] == [type(value) for value in values]


def test_missing_kinds_and_amounts_are_known_by_their_white_space():
    log = {**LOG, "what": [" "] * 6, "paid": [" ", " 1.5 ", *"1234"]}
    assert joined(log, weeks=2).splits["train"]["events"][:2] == [
        "since=1 event amount=1 gap=30 event",
        "since=22 event amount=1.5",
    ]


def test_amounts_may_have_a_decimal_comma():
    log = {**LOG, "paid": ["1,5"] * 6}
    assert joined(log, decimal=",", weeks=2).splits["train"]["events"][1] == "since=22 buy amount=1.5"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"columns": {**COLUMNS, "time": None}}, "data.columns.time must be set for a table with one row per event."),
        ({"columns": {**COLUMNS, "amount": "pay"}}, "data.columns.amount must be a column of the data. Got 'pay'. Known: 'who', 'when', 'what', 'paid'."),
        ({"log": {**LOG, "who": ["a", "", "a", "a", "b", "c"]}}, "data.columns.customer must name a customer in each row. Got none in row 1."),
        ({"log": {**LOG, "when": ["soon"] * 6}}, "data.columns.time must contain in each row a date or time such as 2024-05-31 or 2024-05-31T12:30. Got 'soon' in row 0."),
        ({"log": {**LOG, "paid": ["1", "a lot", *"1234"]}}, "data.columns.amount must contain in each row a number, or empty. Got 'a lot' in row 1."),
        ({"log": {**LOG, "paid": ["1,234", *"12345"]}}, "data.columns.amount must contain in each row a number, or empty. Got '1,234' in row 0. If the comma is a decimal mark, set data.decimal: ','; else remove it."),
        ({"log": {**LOG, "paid": ["1.234", *"12345"]}, "decimal": ","}, "data.columns.amount must contain in each row a number, or empty. Got '1.234' in row 0."),
        ({"log": {**LOG, "paid": [[1]] * 6}}, "data.columns.amount must contain in each row a number, or empty. Got [1] in row 0."),
        ({"log": {**LOG, "what": ["buy", "[MASK]", *"1234"]}}, "data.columns.kind must not contain a special token of the model. Got '[MASK]' in row 1."),
        ({"columns": {**COLUMNS, "label": "what"}}, "data.columns.label must not be set with data.outcome, which computes the label. Got 'what'."),
        ({"columns": {**COLUMNS, "weight": "paid"}}, "data.columns.weight must not be set for a table with one row per event. Got 'paid'. The rows of a customer are one example, which has no weight."),
        ({"columns": {**COLUMNS, "events": "what"}}, "data.columns.events must not be set for a table with one row per event. Got 'what'. Histories are joined from its rows; a table of histories needs no data.columns.customer."),
        ({"time": "2024-03-03", "weeks": 1}, "data.split.time must have events before the 1 week before it, and events in the 1 week after it. Got 2024-03-03, with events from 2024-01-01 to 2024-03-06. Choose a date from 2024-01-09 to 2024-02-29."),
        ({"time": None}, "data.split.time must be set with data.outcome: histories end at a date, and labels come after it."),
        ({"kind": "bye"}, "data.outcome.kind must be a kind of event in the data. Got 'bye'. Nearest: 'buy'."),
        ({"time": "2024-03-01", "weeks": 4}, "data.split.time must have events before the 4 weeks before it, and events in the 4 weeks after it. Got 2024-03-01, with events from 2024-01-01 to 2024-03-06. Choose a date from 2024-01-30 to 2024-02-08."),
        ({"weeks": 40}, "data.split.time must have events before the 40 weeks before it, and events in the 40 weeks after it. Got 2024-02-15, with events from 2024-01-01 to 2024-03-06. Set fewer weeks."),
        ({"outcome": False}, "data.columns.label must be a column whose value is the same in all rows of a customer, or data.outcome must be set."),
        ({"outcome": False, "columns": {**COLUMNS, "label": "what"}, "time": None}, "data.columns.label must have one value per customer. Got several for 'a'."),
        ({"outcome": False, "columns": {**COLUMNS, "label": "who"}}, "data.split.time must not be set for a table with one row per event unless data.outcome is set. Got 2024-02-15. It is unknown when a label was known."),
    ],
)  # fmt: skip
def test_an_unusable_table_is_an_error(changes, message):
    with pytest.raises(InputError) as caught:
        joined(**changes)
    assert [str(problem) for problem in caught.value.problems] == [message]


def test_a_table_of_events_is_not_split_already():
    data = SimpleNamespace(decimal=None, outcome=None, split=SimpleNamespace(time=None))
    table = Dataset.from_dict(LOG)
    with pytest.raises(InputError, match=r"data\.path must be one table if it has one row per event"):
        join_log({"train": table, "test": table}, COLUMNS, data)


def evaluated(folder, **options):
    lines = [
        ",".join(["client", *list(LOG)[1:]]),
        *(f"{a},{b},{c},1" for a, b, c in zip(*list(LOG.values())[:3], strict=True)),
    ]
    (folder / "log.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    time, group = options.pop("time", "2024-02-15"), options.pop("group", None)
    columns = {"customer": "who", "time": "when", "kind": "what"}
    data = {"path": "d", "columns": columns, "outcome": 2, "split": {"time": time, "group": group}}
    stages = [{"train": "all", "epochs": 1, "lr": 0.1}]
    spec = parse_recipe(
        {"task": "event-classification", "model": {"new": {}}, "data": data, "stages": stages}
    ).data
    settings = {"modality": EVENTS, "target": "single_label", "label_names": ("no", "yes"), "spec": spec}
    return load_for_evaluation(str(folder / "log.csv"), **settings, **options)


def test_an_evaluation_names_other_columns(tmp_path):
    assert evaluated(tmp_path, named={"customer": "client"})["events"][:] == [
        "since=15 buy gap=30 view",
        "since=36 buy",
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "data.columns.customer must be a column of the data. Got 'who'. Known: 'client', 'when', 'what', 'paid'."),
        ({"named": {"customer": "x"}}, "--column customer must be a column of the data. Got 'x'. Known: 'client', 'when', 'what', 'paid'."),
        ({"named": {"customer": "client", "label": "what"}}, "--column label must not be set with data.outcome, which computes the label. Got 'what'."),
        ({"named": {"customer": "client"}, "time": "2025-01-01"}, "data.split.time must have events before the 2 weeks before it, and events in the 2 weeks after it. Got 2025-01-01, with events from 2024-01-01 to 2024-03-06. The date is that of the run's recipe: evaluate on data that covers it."),
        ({"named": {"customer": "client"}, "group": "client"}, "data.split.group must be a column of the joined rows. Got 'client'. After rows are joined, only these columns can be named: 'customer', 'label', 'time'."),
    ],
)  # fmt: skip
def test_a_table_that_cannot_be_evaluated_is_an_error(tmp_path, options, message):
    with pytest.raises(InputError) as caught:
        evaluated(tmp_path, **options)
    assert [str(problem) for problem in caught.value.problems] == [message]


def test_predictions_join_the_rows_of_each_customer():
    examples = EVENTS.join_prediction_rows(
        {"who": LOG["who"], "when": LOG["when"]}, {"customer": "who", "time": "when"}, None
    )
    assert list(examples) == [
        ("a", {"events": "since=15 event gap=20 event gap=30 event"}),
        ("b", {"events": "since=1 event gap=55 event"}),
        ("c", {"events": "since=0 event"}),
    ]
