"""Tables with one row per observation: series, times and values, brought to a regular grid."""

import pytest
from series_helpers import months, problem, read

from hf_finetune.tasks.series.grid import Grid


@pytest.mark.parametrize(
    ("times", "words", "season"),
    [
        (months(6), "1 month", 12),
        (["2024-01-31", "2024-02-29", "2024-03-31", "2024-04-30"], "1 month", 12),
        (["2024-01-30", "2024-02-29", "2024-03-30", "2024-04-30"], "1 month", 12),
        (["2024-01-30", "2024-02-29", "2024-03-30", "2024-04-30"], "1 month", 12),
        (["2024-01-01", "2024-04-01", "2024-07-01", "2024-10-01"], "3 months", 4),
        (["2020-01-01", "2021-01-01", "2022-01-01"], "12 months", 1),
        (["2023-12", "2024-01", "2024-02"], "1 month", 12),
        ([202312, 202401, 202402], "1 month", 12),
        (["2024-01-29", "2024-01-30", "2024-01-31", "2024-02-01"], "1 day", 7),
        (["2024-01-01", "2024-01-08", "2024-01-15"], "7 days", 52),
        (["2024-01-01T00:00", "2024-01-01T01:00", "2024-01-01T02:00"], "1 hour", 24),
        (["2024-01-01T00:00", "2024-01-01T00:15", "2024-01-01T00:30"], "15 minutes", 1),
        ([1, 2, 3, 4], "1 step", 1),
        (["1999", "2000", "2001"], "1 step", 1),
    ],
)
def test_the_step_and_the_season_follow_from_the_times(times, words, season):
    rows = {"time": times, "value": [float(place) for place in range(len(times))]}
    found = read(rows, {"time": "time", "value": "value"})
    assert (found.grid.words, found.grid.season) == (words, season)
    assert found.values["series"].tolist() == rows["value"]


def test_rows_may_be_in_any_order_and_numbers_may_be_text():
    rows = {"series": ["b", "a", "b", "a"], "time": [2, 2, 1, 1], "value": ["4,5", "2", "3", "1"]}
    found = read(rows, decimal=",")
    assert {name: values.tolist() for name, values in found.values.items()} == {"a": [1, 2], "b": [3, 4.5]}


def test_a_gap_is_named():
    rows = {"series": ["a"] * 3, "time": ["2024-01-01", "2024-01-02", "2024-01-05"], "value": [1.0, 2.0, 5.0]}
    assert problem(lambda: read(rows)) == (
        "The series must have a value at each step of 1 day. Got 'a' lacks times before 2024-01-05. Fill the gaps (0 "
        "for a day without sales is a value), or train with data.gaps: interpolate."
    )


def test_gaps_are_filled_on_request():
    rows = {
        "series": ["a"] * 5,
        "time": ["2023-12-31", "2024-01-01", "2024-01-02", "2024-01-05", "2024-01-06"],
        "value": [None, 1.0, 2.0, 5.0, None],
    }
    found = read(rows, gaps="interpolate")
    assert found.values["a"].tolist() == [1, 2, 3, 4, 5] and found.filled == 2
    assert found.times["a"][0] == "2024-01-01"  # a series begins and ends with a value


def test_a_series_without_values_is_named():
    rows = {"series": ["a", "a", "b"], "time": [1, 2, 1], "value": [1.0, 2.0, None]}
    assert "'b' has no value. Remove its rows." in problem(lambda: read(rows, gaps="interpolate"))


def test_a_mistyped_year_is_named_and_not_filled():
    times = ["1924-01-01", "2024-01-02", "2024-01-03", "2024-01-04"]
    rows = {"time": times, "value": [1.0, 2.0, 3.0, 4.0]}
    message = problem(lambda: read(rows, {"time": "time", "value": "value"}, gaps="interpolate"))
    assert (
        "has values at less than half of its steps, such as none before 2024-01-02. Correct its times"
        in message
    )


def test_days_at_the_end_of_two_months_are_days():
    times = ["2024-01-30", "2024-01-31", "2024-02-28"]
    assert "at each step of 1 day" in problem(
        lambda: read({"time": times, "value": [1.0, 2.0, 3.0]}, {"time": "time", "value": "value"})
    )


def test_a_known_step_shows_gaps_that_are_regular():
    rows = {"time": ["2024-01-01", "2024-03-01", "2024-05-01"], "value": [1.0, 3.0, 5.0]}
    columns = {"time": "time", "value": "value"}
    assert read(rows, columns).values["series"].tolist() == [1, 3, 5]
    monthly = Grid(1, "months")
    assert "lacks times before 2024-03-01" in problem(lambda: read(rows, columns, grid=monthly))
    assert read(rows, columns, grid=monthly, gaps="interpolate").values["series"].tolist() == [1, 2, 3, 4, 5]
    days = {**rows, "time": ["2024-01-01", "2024-01-02", "2024-01-03"]}
    assert problem(lambda: read(days, columns, grid=monthly)) == (
        "data.columns.time must have steps of 1 month. Got steps of 1 day."
    )


def test_days_of_a_place_whose_clocks_change_are_days():
    times = ["2024-03-30T00:00+01:00", "2024-03-31T00:00+01:00", "2024-04-01T00:00+02:00"]
    found = read({"time": times, "value": [1.0, 2.0, 3.0]}, {"time": "time", "value": "value"})
    assert (found.grid.words, len(found.values["series"])) == ("1 day", 3)


def test_a_missing_value_is_named():
    rows = {"series": ["a"] * 3, "time": [1, 2, 3], "value": [1.0, None, 3.0]}
    assert "'a' lacks a value at 2." in problem(lambda: read(rows))


def test_a_time_between_two_steps_cannot_be_filled():
    times = ["2024-01-01T00:00", "2024-01-02T00:00", "2024-01-03T00:00", "2024-01-03T07:00"]
    rows = {"series": ["a"] * 4, "time": times, "value": [1.0, 2.0, 3.0, 4.0]}
    assert problem(lambda: read(rows, gaps="interpolate")) == (
        "The series must have a value at each step of 1 day. Got 'a' has a time between two steps: 2024-01-03T07:00. "
        "Add up the values of each step first, such as those of a day."
    )


def test_a_repeated_time_is_named():
    rows = {"series": ["a", "a", "b"], "time": [1, 1, 1], "value": [1.0, 2.0, 3.0]}
    assert problem(lambda: read(rows)).startswith(
        "data.columns.time must have one row for each series and time. Got 1 row of a time that has one already: 'a at "
        "1'."
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"value": [1.0, "many", 3.0]}, "data.columns.value must contain in each row a number, or nothing"),
        (
            {"value": [1.0, float("inf"), 3.0]},
            "data.columns.value must contain in each row a number, or nothing",
        ),
        (
            {"time": ["2024-01-01", "soon", "2024-01-03"]},
            "data.columns.time must contain in each row a date or time",
        ),
        (
            {"series": ["a", "", "a"]},
            "data.columns.series must name a series in each row. Got none in row 1.",
        ),
    ],
)
def test_cells_that_cannot_be_read_are_named(change, message):
    rows = {"series": ["a"] * 3, "time": [1, 2, 3], "value": [1.0, 2.0, 3.0], **change}
    assert problem(lambda: read(rows)).startswith(message)


def test_covariates_may_go_on_after_the_values():
    rows = {
        "series": ["a"] * 4,
        "time": [1, 2, 3, 4],
        "value": [1.0, 2.0, None, None],
        "promo": ["0", "1", "1", "0"],
    }
    found = read(rows, covariates=["promo"])
    assert found.values["a"].tolist() == [1, 2] and found.covariates["a"].tolist() == [[0], [1], [1], [0]]
    assert "'a' lacks a covariate at 3" in problem(
        lambda: read({**rows, "promo": [0, 1, None, 0]}, covariates=["promo"])
    )
    assert problem(lambda: read(rows, covariates=["prom"])).startswith(
        "data.covariates must be columns of the data."
    )


@pytest.mark.parametrize("hours", [(0, 1, 3, 4), (1, 2, 2, 3)])
def test_the_hour_in_which_clocks_are_changed_is_explained(hours):
    times = [f"2024-03-31 {hour:02d}:00" for hour in hours]
    rows = {"time": times, "value": [1.0] * 4}
    message = problem(lambda: read(rows, {"time": "time", "value": "value"}))
    assert message.endswith("If this is the hour in which clocks are changed, write the times in UTC.")
