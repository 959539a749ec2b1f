"""Bad inputs: histories of events, tables with one row per event, new models, and divisions by time."""

from bad_input_case import Case
from bad_input_steps import change, do, rows, write

__all__ = ["CASES"]

RECIPE = """\
task: event-classification
model: {new: {layers: 1, hidden: 16}}
data:
  path: ./log.csv
  columns: {customer: who, time: day, amount: paid}
  outcome: {weeks: 2}
  split: {time: "2024-02-01", validation: 0.2}
stages:
  - {name: all, train: all, epochs: 1, lr: 1e-3}
"""
DAYS = [f"{number % 7},2024-0{month}-{1 + number:02},{number}" for number in range(20) for month in (1, 2)]
LOG = do(write("events.yaml", RECIPE), rows("log.csv", "who,day,paid", *DAYS))
HISTORIES = do(
    write("events.yaml", RECIPE.replace("  columns: {customer: who, time: day, amount: paid}\n", "")),
    change("events.yaml", "  outcome: {weeks: 2}\n", ""),
    change("events.yaml", 'time: "2024-02-01", validation: 0.2', "validation: 0.2, test: 0.2"),
)

CASES = [
    Case(
        "a date after which the events end too early",
        "plan events.yaml data.split.time=2024-02-15",
        (
            "Problem:\n"
            "  data.split.time must have events before the 2 weeks before it, and events in the 2 weeks after it. Got "
            "2024-02-15, with events from 2024-01-01 to 2024-02-20. Choose a date from 2024-01-16 to 2024-02-07."
        ),
        LOG,
    ),
    Case(
        "a computed label without a date",
        "plan events.yaml data.split.time=",
        (
            "Problem:\n"
            "  data.split.time must be set with data.outcome: histories end at a date, and labels come after it."
        ),
        LOG,
    ),
    Case(
        "events at a time that is no date",
        "plan events.yaml",
        (
            "Problem:\n"
            "  data.columns.time must contain in each row a date or time such as 2024-05-31 or 2024-05-31T12:30. Got "
            "'12 May' in row 40."
        ),
        do(LOG, rows("log.csv", "who,day,paid", *DAYS, "3,12 May,1")),
    ),
    Case(
        "a date that is none",
        "plan events.yaml data.split.time=spring",
        (
            "Problem:\n"
            "  data.split.time must be a date or time in ISO 8601. Got 'spring'. For example 2024-05-31."
        ),
        LOG,
    ),
    Case(
        "a new model and a checkpoint",
        "plan events.yaml model.path=./bert",
        ("Problem:\n  model must not have both path and new. Got './bert'. Remove path, or set new to null."),
        LOG,
    ),
    Case(
        "a new model for texts",
        "plan text.yaml",
        (
            "Problem:\n"
            "  model.new must not be set when the task is text-classification. Only models for histories, "
            "histories of items, windows of time series are built without a checkpoint."
        ),
        change("text.yaml", "./bert", "{new: {}}"),
    ),
    Case(
        "a list of events with an unknown key",
        "plan events.yaml",
        (
            "Problem:\n"
            "  train:2 must contain a history of events. Got a list with 'price'; known keys of an event: kind, time, "
            "days, amount. Replace or remove it, or set data.on_error: skip."
        ),
        do(
            HISTORIES,
            change("events.yaml", "log.csv", "log.jsonl"),
            rows(
                "log.jsonl",
                '{"events": [{"kind": "a"}], "label": "x"}',
                '{"events": [{"kind": "b"}], "label": "y"}',
                '{"events": [{"kind": "b", "price": 2}], "label": "y"}',
                *[f'{{"events": [{{"kind": "{label}"}}], "label": "{label}"}}' for label in "xy" * 9],
            ),
        ),
    ),
    Case(
        "a division by time of data with a test split",
        "plan text.yaml data.split.time=2024-01-15",
        (
            "Problem:\n"
            "  data.split.time must not be set for data with a test split. Got 2024-01-15. Its splits: 'train', "
            "'test'."
        ),
        do(
            rows("split/train.csv", "text,label,date", "good,a,2024-01-01", "bad,b,2024-02-01"),
            rows("split/test.csv", "text,label,date", "fine,a,2024-01-01", "poor,b,2024-02-01"),
            change("text.yaml", "./reviews.csv", "./split"),
        ),
    ),
]
