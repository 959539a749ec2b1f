"""Tables of time series that `init` recognizes by their values, whatever their columns are called."""

import csv
from datetime import date, timedelta

import pytest

from hf_finetune.errors import InputError
from hf_finetune.search.inspect_data import inspect_data

DAYS = 60


def write_sales(
    path, header=("artikel", "tag", "menge"), shops=3, left_out=None, value=lambda shop, day: 10 * shop + day
):
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        for shop in range(shops):
            for day in range(DAYS):
                if (shop, day) != left_out:
                    cells = [
                        f"shop {shop}",
                        (date(2024, 1, 1) + timedelta(days=day)).isoformat(),
                        value(shop, day),
                    ]
                    writer.writerow(cells[-len(header) :])
    return str(path)


def test_columns_of_unusual_names_are_found_by_their_values(tmp_path):
    found = inspect_data(write_sales(tmp_path / "t.csv"))
    assert found.task.name == "time-series-forecasting"
    assert found.fields["columns"] == {"time": "tag", "value": "menge", "series": "artikel"}
    assert set(found.guessed) == {"time", "value", "series"}


def test_a_single_series_needs_no_name(tmp_path):
    found = inspect_data(write_sales(tmp_path / "t.csv", ("tag", "menge"), shops=1))
    assert found.fields["columns"] == {"time": "tag", "value": "menge"}


def test_a_gap_in_a_table_of_series_is_the_only_problem(tmp_path):
    with pytest.raises(InputError) as error:
        inspect_data(write_sales(tmp_path / "t.csv", left_out=(1, 30)))
    (problem,) = error.value.problems
    assert "'shop 1' lacks times before 2024-02-01" in str(problem)


@pytest.mark.parametrize(
    ("header", "options"),
    [
        (("artikel", "tag", "klasse"), {"value": lambda shop, day: day % 2}),  # two values are classes
        (("tag", "menge"), {}),  # each time three times, and no column that tells the rows apart
        (("artikel", "tag", "label"), {}),
    ],
    ids=["classes", "repeated times", "labels"],
)
def test_other_tables_are_no_series(tmp_path, header, options):
    path = write_sales(tmp_path / "t.csv", header, **options)
    try:
        assert inspect_data(path).task.name != "time-series-forecasting"
    except InputError as error:
        assert error.problems
