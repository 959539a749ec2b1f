"""Series to forecast from a table: the times that follow, and the series that cannot be used."""

from datetime import date, datetime

import pytest
from series_helpers import COLUMNS, months, problem, table

from hf_finetune.errors import Problem
from hf_finetune.tasks.series.latest import latest_examples

MONTHLY = {**COLUMNS, "step": "1 months", "horizon": "3"}


def times_after(times, step, horizon=3):
    rows = {"time": times, "value": [1.0] * len(times)}
    columns = {"time": "time", "value": "value", "step": step, "horizon": str(horizon)}
    ((_, cells),) = latest_examples(rows, columns, None)
    return cells["time"]


@pytest.mark.parametrize(
    ("times", "step", "following"),
    [
        (["2023-10-01", "2023-11-01"], "1 months", ["2023-12-01", "2024-01-01", "2024-02-01"]),
        (["2023-11-30", "2023-12-31"], "1 months", ["2024-01-31", "2024-02-29", "2024-03-31"]),
        (["2023-11-30", "2023-12-30"], "1 months", ["2024-01-30", "2024-02-29", "2024-03-30"]),
        (["2024-01-30", "2024-02-29"], "1 months", ["2024-03-30", "2024-04-30", "2024-05-30"]),
        (["2023-07-01", "2023-10-01"], "3 months", ["2024-01-01", "2024-04-01", "2024-07-01"]),
        (["2023-11", "2023-12"], "1 months", ["2024-01", "2024-02", "2024-03"]),
        ([202311, 202312], "1 months", ["202401", "202402", "202403"]),
        (["2024-02-27", "2024-02-28"], "86400 seconds", ["2024-02-29", "2024-03-01", "2024-03-02"]),
        (["20240227", "20240228"], "86400 seconds", ["20240229", "20240301", "20240302"]),
        ([date(2024, 2, 27), date(2024, 2, 28)], "86400 seconds", ["2024-02-29", "2024-03-01", "2024-03-02"]),
        (
            ["2024-01-01T22:00", "2024-01-01T23:00"],
            "3600 seconds",
            ["2024-01-02T00:00:00", "2024-01-02T01:00:00", "2024-01-02T02:00:00"],
        ),
        (
            [datetime(2024, 1, 1, 22), datetime(2024, 1, 1, 23)],
            "3600 seconds",
            ["2024-01-02 00:00:00", "2024-01-02 01:00:00", "2024-01-02 02:00:00"],
        ),
        (
            ["2024-01-01T23:00:00+01:00", "2024-01-02T00:00:00+01:00"],
            "3600 seconds",
            ["2024-01-02T01:00:00+01:00", "2024-01-02T02:00:00+01:00", "2024-01-02T03:00:00+01:00"],
        ),
        ([1999, 2000], "1 steps", ["2001", "2002", "2003"]),
        (["10", "12"], "2 steps", ["14", "16", "18"]),
    ],
)
def test_times_go_on_in_the_form_of_the_table(times, step, following):
    assert times_after(times, step) == following


def test_without_a_known_horizon_there_are_no_times():
    (first, _) = latest_examples(table(), {**COLUMNS, "step": "1 months"}, None)
    assert list(first[1]) == ["past_values"]


def test_a_series_that_cannot_be_used_does_not_stop_the_others():
    rows = table(series=4, length=24)
    dropped = rows["series"].index("s1") + 5  # a gap in s1, and a time that s2 has twice
    rows["time"][rows["series"].index("s2") + 1] = rows["time"][rows["series"].index("s2")]
    kept = {name: [*cells[:dropped], *cells[dropped + 1 :]] for name, cells in rows.items()}
    found = dict(latest_examples(kept, MONTHLY, None))
    assert list(found) == ["s0", "s1", "s2", "s3"]
    assert str(found["s1"]).startswith(
        f"The series must have a value at each step of 1 month. Got 's1' lacks times before {months(7)[-1]}."
    )
    assert "Got 1 row of a time that has one already: 's2 at 2000-01-01'" in str(found["s2"])
    assert found["s3"]["past_values"]["values"] == rows["value"][-24:]


def test_a_table_without_a_series_that_can_be_used_is_an_error():
    rows = table(series=2, length=24)
    for name in ("s0", "s1"):
        rows["value"][rows["series"].index(name) + 3] = None
    message = problem(lambda: list(latest_examples(rows, MONTHLY, None)))
    assert "'s0' lacks a value at 2000-04-01; 's1' lacks a value at 2000-04-01" in message


def test_a_series_whose_covariates_end_too_early_is_named():
    rows = table(series=2, length=24)
    ahead = {"series": ["s0"] * 3 + ["s1"], "time": [*months(3, 24), *months(1, 24)], "value": [None] * 4}
    rows = {name: [*cells, *ahead[name]] for name, cells in rows.items()}
    rows["price"] = [1.0] * len(rows["value"])
    columns = {**MONTHLY, "covariates": '["price"]'}
    found = dict(latest_examples(rows, columns, None))
    assert found["s0"]["time"] == months(3, 24) and len(found["s0"]["past_values"]["covariates"]) == 27
    assert found["s1"] == Problem(
        "The series",
        "must go on for 3 steps after the last value",
        "1 step",
        "Append rows with the times and price, and an empty value.",
    )
