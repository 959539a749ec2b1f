"""Time series: tables with one row per observation, and the examples that are cut from them."""

import numpy as np
import pytest
from datasets import Dataset

from hf_finetune.errors import InputError
from hf_finetune.recipe.load import parse_recipe
from hf_finetune.tasks import MODALITIES
from hf_finetune.tasks.examples import ExampleError
from hf_finetune.tasks.series.grid import Grid
from hf_finetune.tasks.series.observations import read_observations
from hf_finetune.tasks.series.stored import read_past
from hf_finetune.tasks.series.windows import cut_windows, mean_error_of_naive, with_scales

MODALITY = MODALITIES["series"]
COLUMNS = {"series": "series", "time": "time", "value": "value"}


def data_of(**fields):
    content = {"task": "time-series-forecasting", "model": {"new": {}}, "data": {"path": "p", **fields}}
    return parse_recipe({**content, "stages": [{"name": "all", "train": "all", "epochs": 1}]}).data


def months(count, start=0):
    return [f"{2000 + (start + index) // 12}-{(start + index) % 12 + 1:02d}-01" for index in range(count)]


def table(series=2, length=60, times=None):
    """Return rows whose value tells series and position: 1000 times the series, plus the position."""
    times = times or months(length)
    rows = [
        (f"s{index}", times[place], 1000.0 * index + place)
        for index in range(series)
        for place in range(length)
    ]
    names, cells, values = zip(*rows, strict=True)
    return {"series": list(names), "time": list(cells), "value": list(values)}


def read(rows, columns=COLUMNS, **options):
    return read_observations(rows, columns, **{"decimal": None, "gaps": "error", **options})


def cut(rows, **fields):
    columns = data_of().columns.model_dump()
    return cut_windows({"train": Dataset.from_dict(rows)}, columns, data_of(**fields))


def problem(call):
    with pytest.raises(InputError) as caught:
        call()
    return str(caught.value)


# --- Observations ------------------------------------------------------------------------------------------------


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


# --- Examples ----------------------------------------------------------------------------------------------------


def positions(joined, split):
    """Return series, position of the first and last past value, and of the first and last label, of each example."""
    rows = joined.splits[split]
    found = []
    for past, label in zip(
        [each["values"] for each in rows["past_values"]], rows["future_values"], strict=True
    ):
        series, first = divmod(int(past[0]), 1000)
        found.append((series, first, int(past[-1]) % 1000, int(label[0]) % 1000, int(label[-2]) % 1000))
    return found


def test_no_split_sees_what_a_later_one_is_tested_on():
    joined = cut(table(), horizon=6, context_length=24)
    assert positions(joined, "test") == [(0, 0, 53, 54, 59), (1, 0, 53, 54, 59)]
    assert positions(joined, "validation") == [(0, 0, 47, 48, 53), (1, 0, 47, 48, 53)]
    train = positions(joined, "train")
    assert max(last for *_, last in train) == 47
    assert {first - last for _, _, last, first, _ in train} == {1}
    assert max(last - first for _, first, last, *_ in train) == 23
    assert min(last - first for _, first, last, *_ in train) == 12  # more than a season
    assert joined.groups_recur and joined.columns["group"] == "series"


def test_origins_roll():
    joined = cut(table(), horizon=4, context_length=24, test_origins=3, validation_origins=2, stride=5)
    assert [first for series, _, _, first, _ in positions(joined, "test") if series == 0] == [48, 52, 56]
    assert [first for series, _, _, first, _ in positions(joined, "validation") if series == 0] == [40, 44]
    starts = [first for series, _, _, first, _ in positions(joined, "train") if series == 0]
    assert starts == [16, 21, 26, 31, 36]


def test_a_date_divides_the_series():
    joined = cut(table(), horizon=6, context_length=24, split={"time": "2003-07-01"})
    assert [first for series, _, _, first, _ in positions(joined, "test") if series == 0] == [42, 48, 54]
    assert max(last for *_, last in positions(joined, "train")) == 35
    assert joined.splits["test"]["origin"][:3] == ["2003-07-01", "2004-01-01", "2004-07-01"]


def test_without_validation_training_goes_on_until_the_test():
    joined = cut(table(), horizon=6, context_length=24, split={"validation": 0})
    assert set(joined.splits) == {"train", "test"}
    assert max(last for *_, last in positions(joined, "train")) == 53


def test_errors_are_scaled_by_the_past_of_the_series():
    rows = table(series=1)
    rows["value"] = [float(value**2) for value in rows["value"]]
    joined = cut(rows, horizon=6, context_length=24, season=12)
    values = np.array(rows["value"])
    (test,) = joined.splits["test"]["future_values"]
    assert test[-1] == pytest.approx(np.abs(values[12:54] - values[:42]).mean())
    trained = np.abs(values[12:48] - values[:36]).mean()
    assert [label[-1] for label in joined.splits["train"]["future_values"]] == pytest.approx([trained] * 30)
    assert mean_error_of_naive(values[:5], 12) == pytest.approx(np.abs(np.diff(values[:5])).mean())
    assert mean_error_of_naive(values[:1], 12) == 0


def test_covariates_of_an_example_end_with_its_last_label():
    rows = {**table(), "promo": [float(place) for place in range(60)] * 2}
    joined = cut(rows, horizon=6, context_length=24, covariates=["promo"])
    for split in ("train", "test"):
        for past, label in zip(
            *(joined.splits[split][name] for name in ("past_values", "future_values")), strict=True
        ):
            known, values = past["covariates"], past["values"]
            assert known[0] == [values[0] % 1000] and known[-1] == [label[-2] % 1000]
    assert joined.sources["covariates"] == '["promo"]'


def test_short_series_are_named_or_left_out():
    rows = table(series=2)
    short = {"series": ["tiny"] * 20, "time": months(20), "value": [1.0 * place for place in range(20)]}
    both = {name: [*rows[name], *short[name]] for name in rows}
    assert problem(lambda: cut(both, horizon=6, context_length=24)) == (
        "The series must have at least 13 past values, 6 values to learn to forecast, and for each example 6 more, 1 "
        "to validate and 1 to test. Got tiny (20 values). Lower data.horizon, data.context_length or the number of "
        "origins, or leave out short series with data.on_error: skip."
    )
    joined = cut(both, horizon=6, context_length=24, on_error="skip")
    assert set(joined.splits["test"]["series"]) == {"s0", "s1"}
    assert "1 series too short were left out: tiny (20 values)." in joined.notes


def test_a_single_series_has_no_groups():
    rows = table(series=1)
    del rows["series"]
    joined = cut(rows, horizon=6, context_length=24)
    assert "group" not in joined.columns and len(joined.splits["test"]) == 1


def test_series_without_errors_have_no_scale():
    rows = table(series=2)
    rows["value"][:60] = [float(place % 12) for place in range(60)]
    joined = cut(rows, horizon=6, context_length=24)
    assert joined.splits["test"]["future_values"][0][-1] == 0
    assert joined.notes[-1].startswith("1 series repeat exactly")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"columns": {"label": "value"}},
            "data.columns.label must not be set for a table with one row",
        ),
        ({"split": {"time": "2030-01-01"}}, "data.split.time must leave 6 values after it in a series"),
    ],
)
def test_fields_that_do_not_fit_are_named(fields, message):
    spec = data_of(horizon=6, context_length=24, **fields)
    rows = {"train": Dataset.from_dict(table())}
    assert problem(lambda: cut_windows(rows, spec.columns.model_dump(), spec)).startswith(message)


def test_filled_values_do_not_look_ahead():
    rows = table(series=1)
    kept = [place for place in range(60) if place not in (30, 45, 46, 47, 56)]
    rows = {name: [cells[place] for place in kept] for name, cells in rows.items()}
    settings = {"horizon": 6, "context_length": 24, "gaps": "interpolate", "test_origins": 2}
    assert problem(lambda: cut(rows, **settings)) == (
        "The series must have a validation example without a filled value. Got none. Fill the gaps, or set "
        "data.split.validation: 0."
    )
    joined = cut(rows, **settings, split={"validation": 0})
    assert len(joined.splits["test"]) == 1  # of the second one, a label is missing
    (test,) = joined.splits["test"]["past_values"]
    assert test["values"][-4:] == [44, 44, 44, 44] and test["values"][-19:-16] == [29, 30, 31]
    names = ("past_values", "future_values")
    train = [joined.splits["train"][name] for name in names]
    assert not any({30, 45, 46, 47} & set(label[:-1]) for label in train[1])
    pasts = {label[0]: past["values"] for past, label in zip(*train, strict=True)}
    assert pasts[31.0][-2:] == [29, 29] and pasts[32.0][-3:] == [29, 30, 31]


def test_steps_without_values_are_not_tested_on():
    rows = {**table(series=1), "promo": [1.0] * 60}
    rows["value"][-4:] = [None] * 4
    fields = {"horizon": 6, "context_length": 24, "covariates": ["promo"], "split": {"time": "2005-01-01"}}
    assert problem(lambda: cut(rows, **fields)).startswith("data.split.time must leave 6 values after it")
    joined = cut(rows, **{**fields, "split": {"time": "2004-01-01"}})
    assert {len(label) for split in joined.splits.values() for label in split["future_values"]} == {7}


def test_a_column_that_numbers_the_rows_is_no_series():
    rows = table(series=1)
    rows = {"id": list(range(60)), "date": rows["time"], "sales": rows["value"]}
    joined = cut(rows, horizon=6, context_length=24)
    assert "group" not in joined.columns and joined.sources["value"] == "sales"


def test_columns_without_usual_names_must_be_named():
    rows = {"train": Dataset.from_dict({"when": months(60), "units": [1.0] * 60})}
    message = problem(lambda: MODALITY.join_rows(rows, data_of().columns.model_dump(), data_of()))
    assert message.startswith("data.columns.value must be set, because the columns have no usual names")


@pytest.mark.parametrize(
    ("columns", "recognized"),
    [
        ({"date": 0, "sales": 1}, True),
        ({"date": 0, "sales": 1, "price": 1}, True),
        ({"date": 0, "target": 1, "humidity": 1}, False),
        ({"date": 0, "target": 2}, False),
        ({"date": 0, "sales": 1, "label": 2}, False),
    ],
)
def test_a_table_is_claimed_if_nothing_else_is_likely(columns, recognized):
    cells = [months(60), [float(number) for number in range(60)], [float(number % 2) for number in range(60)]]
    rows = Dataset.from_dict({name: cells[kind] for name, kind in columns.items()})
    assert MODALITY.claims(rows) == recognized


def test_times_without_dates_are_not_divided_by_a_date():
    rows = {**table(), "time": [*range(60), *range(60)]}
    assert problem(lambda: cut(rows, horizon=6, context_length=24, split={"time": "2003-07-01"})) == (
        "data.split.time must not be set for times that are whole numbers. Got 2003-07-01, with the time 0. Set "
        "data.test_origins instead."
    )


def test_a_table_that_is_divided_already_is_refused():
    rows = Dataset.from_dict(table())
    columns = data_of().columns.model_dump()
    message = problem(lambda: cut_windows({"train": rows, "test": rows}, columns, data_of()))
    assert message.startswith("data.path must be one table if it has one row per observation")


# --- Rows that are examples --------------------------------------------------------------------------------------


def test_labels_of_examples_get_a_scale():
    rows = Dataset.from_dict({"past_values": ["[1, 3, 2, 4]"], "label": ["[5, 6]"]})
    joined = with_scales({"train": rows}, data_of().columns.model_dump(), 2)
    assert joined.splits["train"]["label"] == [[5, 6, 1]] and joined.columns["label"] == "label"
    assert (
        with_scales({"train": Dataset.from_dict({"text": ["a"]})}, data_of().columns.model_dump(), 2) is None
    )


@pytest.mark.parametrize(
    "cell", [[1, 2.5], "[1, 2.5]", (1, 2.5), {"values": [1, 2.5]}, '{"values": [1, 2.5]}']
)
def test_lists_texts_and_mappings_have_one_form(cell):
    assert read_past(cell) == {"values": [1.0, 2.5], "season": None, "covariates": []}


def test_a_mapping_states_what_else_is_known():
    cell = {"values": [1, 2], "season": 7, "covariates": [[1], [2], [3]]}
    assert read_past(cell) == {"values": [1, 2], "season": 7, "covariates": [[1], [2], [3]]}


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        (None, "empty"),
        ([], "empty"),
        ("1, 2", "no list of numbers: '1, 2'"),
        (7, "no list of numbers: 7"),
        ([1, "x"], "one with 'x' in place of a number"),
        ([1, float("nan")], "one with nan in place of a number"),
        ([True], "one with True in place of a number"),
        ({"values": [1], "seasons": 7}, "one with 'seasons'; known are values, season, covariates"),
        ({"values": [1], "season": 0}, "one with the season 0, not a number of steps"),
        ({"values": [1], "covariates": 7}, "one with covariates that are no list: 7"),
        (
            {"values": [1], "covariates": [[1], [1, 2]]},
            "one with covariates of different numbers in its steps",
        ),
        (
            {"values": [1, 2], "covariates": [[1], [2]]},
            "one with covariates of 2 steps, not more than its 2 values",
        ),
    ],
)
def test_what_is_no_series_is_described(cell, message):
    with pytest.raises(ExampleError) as caught:
        read_past(cell)
    assert str(caught.value) == message
