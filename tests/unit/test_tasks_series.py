"""Time series: the examples that are cut from tables with one row per observation, and rows that are examples."""

import numpy as np
import pytest
from datasets import Dataset
from series_helpers import cut, data_of, months, problem, table

from hf_finetune.tasks import MODALITIES
from hf_finetune.tasks.examples import ExampleError
from hf_finetune.tasks.series.stored import read_past
from hf_finetune.tasks.series.windows import cut_windows, mean_error_of_naive, with_scales

MODALITY = MODALITIES["series"]


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
    assert "Series that are too short were left out (1): tiny (20 values)." in joined.notes


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
    assert joined.notes[-1].endswith("have no scale of errors, and mase leaves them out: 1.")


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
