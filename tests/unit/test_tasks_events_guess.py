"""Tables of events that `init` recognizes as histories with labels."""

import csv
from datetime import date, timedelta

import pytest

from hf_finetune.errors import InputError
from hf_finetune.search.inspect_data import inspect_data


def write_events(
    path,
    header=("customer", "date", "event", "amount", "churned"),
    label=lambda customer, number: customer % 2,
):
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        for customer in range(40):
            for number in range(5):
                day = (date(2024, 1, 1) + timedelta(days=customer + number)).isoformat()
                cells = [
                    f"c{customer}",
                    day,
                    ("buy", "visit")[number % 2],
                    4.5 + number,
                    label(customer, number),
                ]
                writer.writerow(cells[: len(header)])
    return str(path)


def test_a_table_with_a_label_for_each_customer_is_one_of_behaviour(tmp_path):
    found = inspect_data(write_events(tmp_path / "events.csv"))
    assert found.task.name == "event-classification"
    names = {"customer": "customer", "time": "date", "kind": "event", "amount": "amount", "label": "churned"}
    assert found.fields["columns"] == names
    assert sum(map(len, found.splits.values())) == 40


@pytest.mark.parametrize(
    "options",
    [
        {"label": lambda customer, number: number % 2},  # differs within a customer
        {"label": lambda customer, number: 1},  # a single class
        {"label": lambda customer, number: customer},  # as many classes as customers
        {"header": ("customer", "date", "event", "amount")},
    ],
    ids=["of events", "one class", "too many classes", "none"],
)
def test_other_tables_are_not(options, tmp_path):
    try:
        found = inspect_data(write_events(tmp_path / "events.csv", **options))
    except InputError as error:
        assert error.problems
    else:
        assert found.task.name != "event-classification"
