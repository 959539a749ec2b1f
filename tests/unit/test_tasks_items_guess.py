"""Tables of events that `init` recognizes as histories of items."""

import csv
from datetime import date, timedelta
from pathlib import Path

import pytest

from hf_finetune.errors import InputError
from hf_finetune.search.draft_recipe import draft_recipe
from hf_finetune.search.inspect_data import inspect_data

DISHES = [f"dish {number}" for number in range(8)]


def write_orders(path, header=("user_id", "dish", "timestamp", "price"), customers=40, orders=10, further=()):
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*header, *further])
        for customer in range(customers):
            for order in range(orders):
                day = date(2024, 1, 1) + timedelta(days=customer + 5 * order)
                cells = [f"c{customer}", DISHES[(customer + order) % 8], day.isoformat(), 4.5]
                writer.writerow([*cells[: len(header)], *(f"{name} of order {order}" for name in further)])
    return str(path)


def test_a_table_of_orders_is_divided_by_a_date(tmp_path):
    path = write_orders(tmp_path / "orders.csv")
    found = inspect_data(path)
    assert found.task.name == "next-item"
    assert found.fields["columns"] == {"customer": "user_id", "time": "timestamp", "item": "dish"}
    split = found.fields["split"]
    with Path(path).open(encoding="utf-8") as file:
        days = [row["timestamp"] for row in csv.DictReader(file)]
    assert 0.75 < sum(day < split["time"] for day in days) / len(days) <= 0.8
    assert found.other_columns == ("price",)
    text = draft_recipe(found)
    assert (
        f"split: {{time: '{split['time']}', validation: 0.15}} # tested on what comes from this date on"
        in text
    )
    assert "metrics: [hit_rate_at_10, ndcg_at_10, mrr]" in text


def test_a_division_that_the_user_set_is_kept(tmp_path):
    path = write_orders(tmp_path / "orders.csv")
    found = inspect_data(path, fields={"split": {"time": "2024-02-01"}})
    assert found.fields["split"]["time"] == "2024-02-01"


@pytest.mark.parametrize(
    "options",
    [{"header": ("user_id", "dish")}, {"further": ("review",)}, {"customers": 400, "orders": 1}],
    ids=["no times", "texts", "one row per customer"],
)
def test_other_tables_are_no_histories(options, tmp_path):
    try:
        found = inspect_data(write_orders(tmp_path / "table.csv", **options))
    except InputError as error:
        assert error.problems
    else:
        assert found.task.name != "next-item"


def test_neither_dates_nor_names_of_customers_are_guessed_to_be_texts(tmp_path):
    rows = [f"c{row % 60},2024-01-{row % 28 + 1:02d},{'yes' if row % 3 else 'no'}" for row in range(120)]
    (tmp_path / "table.csv").write_text("\n".join(["customer,day,churned", *rows]), encoding="utf-8")
    with pytest.raises(InputError, match=r"For text-classification: data.columns.text must be set"):
        inspect_data(str(tmp_path / "table.csv"))
