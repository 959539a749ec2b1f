"""Bad inputs: histories of items, and tables with one row per event for recommendation."""

from bad_input_case import Case
from bad_input_steps import do, rows, write

__all__ = ["CASES"]

RECIPE = """\
task: next-item
model: {new: {layers: 1, hidden: 16}}
data:
  path: ./log.csv
  columns: {customer: who, time: day, item: film}
  split: {time: "2024-01-15"}
stages:
  - {name: all, train: all, epochs: 1, lr: 1e-3}
metrics: [hit_rate_at_2]
"""
DAYS = [f"{number % 4},2024-01-{1 + number:02},film {number % 5}" for number in range(28)]
LOG = do(write("items.yaml", RECIPE), rows("log.csv", "who,day,film", *DAYS))

CASES = [
    Case(
        "recommendation without a date",
        "plan items.yaml data.split.time=",
        (
            "Problem:\n"
            "  data.split.time must be set for a table with one row per event. Got events from 2024-01-01 to "
            "2024-01-28. Items from this date on test the model."
        ),
        LOG,
    ),
    Case(
        "a date after all items",
        "plan items.yaml data.split.time=2024-02-15",
        (
            "Problem:\n"
            "  data.split.time must leave a customer with several events of which one is from it. Got 2024-02-15, with "
            "events from 2024-01-01 to 2024-01-28."
        ),
        LOG,
    ),
    Case(
        "items that contain a special token",
        "plan items.yaml",
        (
            "Problem:\n"
            "  data.columns.item must name an item in each row. Got row 28: one with the item '[MASK]'; reserved are "
            "[PAD], [UNK], [CLS], [SEP], [MASK]."
        ),
        do(LOG, rows("log.csv", "who,day,film", *DAYS, "3,2024-01-29,[MASK]")),
    ),
    Case(
        "a head of labels for a model of items",
        "plan items.yaml model.head=mlp",
        (
            "Problem:\n"
            "  model.head must not be set when the task is next-item, whose models have no head of the labels. Got "
            "'mlp'."
        ),
        LOG,
    ),
    Case(
        "a rank below all items",
        "plan items.yaml metrics=[hit_rate_at_5]",
        ("Problem:\n  metrics[0] must have a k smaller than the number of classes (5). Got 'hit_rate_at_5'."),
        LOG,
    ),
]
