"""Forecasting from a table with one row per observation: a new model, baselines, covariates, and predictions."""

import base64
import csv
import io
import json
import math
import random
import re
from datetime import date, timedelta

import pytest
import transformers
from rich.console import Console
from run_helpers import quick_run

from hf_finetune.cli.plan_table import print_plan
from hf_finetune.data.recipe_data import load_data
from hf_finetune.errors import InputError
from hf_finetune.evaluation.evaluate_run import evaluate
from hf_finetune.evaluation.predict import predict
from hf_finetune.publishing.space import write_space
from hf_finetune.recipe.load import parse_recipe
from hf_finetune.recipe.yaml_text import read_yaml
from hf_finetune.report.page import write_report
from hf_finetune.runs.estimates import describe_prefix_caches
from hf_finetune.runs.prepare import plan_stages
from hf_finetune.search.draft_recipe import draft_recipe
from hf_finetune.search.inspect_data import inspect_data
from hf_finetune.tasks import TASKS

TASK = "time-series-forecasting"
DAYS, SHOPS, HORIZON = 90, 6, 7
STAGE = {"name": "all", "train": "all", "epochs": 3.0, "lr": 3e-3, "batch_size": 16}
BASELINES = ["seasonal_naive", "theta", "exponential_smoothing", "linear_forecast"]


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_FINETUNE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def rows():
    """Return the sales of shops, higher at weekends, and the days on which prices are lower."""
    chance = random.Random(0)
    sales = []
    for shop in range(SHOPS):
        for number in range(DAYS):
            day, lower = date(2024, 1, 1) + timedelta(days=number), int(chance.random() < 0.3)
            weekend = 30 if day.weekday() > 4 else 0
            sales.append((f"shop {shop}", day.isoformat(), 100 + 10 * shop + weekend + 40 * lower, lower))
    return sales


@pytest.fixture(scope="module")
def table(tmp_path_factory, rows):
    return write(tmp_path_factory.mktemp("data") / "sales.csv", rows)


def write(path, rows):
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("shop", "day", "sold", "promotion"), *rows])
    return path


def recipe_for(table, stage=STAGE, model=None, **data):
    columns = {"series": "shop", "time": "day", "value": "sold"}
    return parse_recipe(
        {
            "task": TASK,
            "model": model or {"new": {"layers": 1, "hidden": 16}},
            "data": {
                "path": str(table),
                "columns": columns,
                "horizon": HORIZON,
                "context_length": 21,
                **data,
            },
            "stages": [stage],
        }
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory, table):
    return quick_run(recipe_for(table), tmp_path_factory.mktemp("run") / "run")


@pytest.fixture(scope="module")
def informed(tmp_path_factory, table):
    recipe = recipe_for(table, covariates=["promotion"])
    return quick_run(recipe, tmp_path_factory.mktemp("run") / "run")


def test_a_report_shows_all_forecasts(finished):
    metrics = finished.metrics
    assert list(metrics["baselines"]) == BASELINES
    assert set(metrics["test"]) >= {
        "mase",
        "smape",
        "weighted_quantile_loss",
        "coverage_error_80",
        "mae",
        "rmse",
    }
    assert metrics["test_groups"] == {"column": "series", "groups": SHOPS}
    page = write_report(finished.folder).read_text(encoding="utf-8")
    assert "seasonal naive forecast" in page and "exponential smoothing (ETS)" in page
    charts = re.findall(r'src="data:image/svg\+xml;base64,([^"]+)"', page)
    assert len(charts) == SHOPS
    assert "<dt>series</dt><dd>shop 0</dd>" in page
    chart = base64.b64decode(charts[0]).decode()
    assert chart.count("<polyline") == 3 and chart.count("<polygon") == 1


def test_the_seasonal_naive_forecast_repeats_the_last_week(finished, rows):
    by_shop = {}
    for shop, _, sold, _ in rows:
        by_shop.setdefault(shop, []).append(sold)
    errors = []
    for values in by_shop.values():
        past, future = values[:-HORIZON], values[-HORIZON:]
        scale = sum(abs(past[day] - past[day - 7]) for day in range(7, len(past))) / (len(past) - 7)
        errors.append(sum(abs(a - b) for a, b in zip(future, past[-7:], strict=True)) / HORIZON / scale)
    expected = sum(errors) / len(errors)
    assert finished.metrics["baselines"]["seasonal_naive"]["mase"] == pytest.approx(expected, rel=1e-5)


def test_a_table_is_forecast_from_its_end(finished, table):
    first = next(iter(predict(finished.folder, [str(table)])))
    assert (first.id, len(first.label)) == ("shop 0", HORIZON)
    assert set(first.scores) == {"quantile:0.1", "quantile:0.9"}
    low, high = first.scores.values()
    assert all(a <= b <= c for a, b, c in zip(low, first.label, high, strict=True))
    past = [row[2] for row in csv.reader(table.open(encoding="utf-8")) if row[0] == "shop 0"]
    listed = next(iter(predict(finished.folder, [json.dumps([float(value) for value in past])])))
    assert listed.label == pytest.approx(first.label)


def test_a_run_is_evaluated_on_later_data(finished, rows, tmp_path):
    later = [row for row in rows if row[1] < "2024-03-25"]
    again = evaluate(finished.folder, data=str(write(tmp_path / "earlier.csv", later)))
    assert len(again.ids) == SHOPS and math.isfinite(again.metrics["mase"])
    same = evaluate(finished.folder)
    assert same.metrics["mase"] == pytest.approx(finished.metrics["test"]["mase"])


def test_covariates_inform_forecasts(informed, finished, rows, tmp_path):
    without = finished.metrics["baselines"]["linear_forecast"]["mase"]
    assert informed.metrics["baselines"]["linear_forecast"]["mase"] < 0.5 * without
    start = date(2024, 1, 1) + timedelta(days=DAYS)
    days = [(start + timedelta(days=number)).isoformat() for number in range(HORIZON)]

    def forecast(promotion):
        ahead = [("shop 0", day, "", promotion) for day in days]
        path = write(
            tmp_path / f"ahead-{promotion}.csv", [*(row for row in rows if row[0] == "shop 0"), *ahead]
        )
        return next(iter(predict(informed.folder, [str(path)])))

    lower, usual = forecast(1), forecast(0)
    assert lower.error is None and lower.label != usual.label
    config = json.loads((informed.folder / "model" / "config.json").read_text(encoding="utf-8"))
    assert (config["num_input_channels"], config["channel_attention"]) == (2, True)


def test_the_card_of_a_model_with_covariates_says_where_they_go(informed):
    folder = informed.folder / "model"
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    values = {}
    exec(TASKS[TASK].usage_code(str(folder), config, str([100.0, 120.0, 90.0])), values)
    past = {"values": [100.0, 120.0, 90.0], "covariates": [[0.0]] * (3 + HORIZON)}
    forecast = next(iter(predict(informed.folder, [json.dumps(past)]))).label
    assert values["forecast"].flatten().tolist() == pytest.approx(forecast, rel=1e-5)


def test_covariates_must_be_known_for_all_steps(informed, table):
    errors = {prediction.error for prediction in predict(informed.folder, [str(table)])}
    assert errors == {
        f"The series must go on for {HORIZON} steps after the last value. Got 0 steps. Append rows with the times and "
        "promotion, and an empty value."
    }
    past = {"values": [100.0] * 30, "covariates": [[0.0]] * 32}
    with pytest.raises(
        InputError, match=f"must have covariates for {HORIZON} steps after the last value. Got 2"
    ):
        list(predict(informed.folder, [json.dumps(past)]))


def test_forecasts_have_times_and_a_faulty_series_an_error(finished, rows, tmp_path):
    faulty = [row for row in rows if row[:2] != ("shop 1", "2024-03-20")]
    stream = predict(finished.folder, [str(write(tmp_path / "faulty.csv", faulty))])
    found = {prediction.id: prediction for prediction in stream}
    assert len(found) == SHOPS and stream.columns == ("time",)
    first = date(2024, 1, 1) + timedelta(days=DAYS)
    assert found["shop 0"].row["time"] == [
        (first + timedelta(days=step)).isoformat() for step in range(HORIZON)
    ]
    assert [name for name, prediction in found.items() if prediction.error] == ["shop 1"]
    assert "'shop 1' lacks times before 2024-03-21" in found["shop 1"].error
    sound = {each.id: each.label for each in predict(finished.folder, [str(write(tmp_path / "s.csv", rows))])}
    assert found["shop 2"].label == pytest.approx(sound["shop 2"])


def test_a_table_with_gaps_in_all_series_is_not_forecast(finished, rows, tmp_path):
    sparse = [row for row in rows if row[1] != "2024-03-20"]
    with pytest.raises(InputError, match="lacks times before 2024-03-21"):
        list(predict(finished.folder, [str(write(tmp_path / "sparse.csv", sparse))]))
    weekly = [row for number, row in enumerate(rows) if number % DAYS % 7 == 0]  # the model is one of days
    with pytest.raises(InputError, match="has values at less than half of its steps"):
        list(predict(finished.folder, [str(write(tmp_path / "weekly.csv", weekly))]))


def test_lists_without_covariates_are_remarked_on(informed):
    stream = predict(informed.folder, [json.dumps([100.0 + day for day in range(30)])])
    assert [prediction.error for prediction in stream] == [None]
    assert stream.remarks.sentences() == [
        "1 example without covariates: the model reads them as missing. Predict a table with one row per observation "
        "that has their columns."
    ]


def test_a_checkpoint_is_adapted_to_other_series(finished, table, tmp_path):
    recipe = recipe_for(table, model=str(finished.folder / "model"), horizon=HORIZON)
    result = quick_run(recipe, tmp_path / "run")
    assert "untrained" in result.metrics["baselines"]
    saved = finished.metrics["test"]["mase"]
    assert result.metrics["baselines"]["untrained"]["mase"] == pytest.approx(saved)
    other = quick_run(recipe_for(table, model=str(finished.folder / "model"), horizon=3), tmp_path / "other")
    assert "untrained" not in other.metrics["baselines"]
    assert transformers.AutoConfig.from_pretrained(other.folder / "model").prediction_length == 3


def test_a_recipe_is_drafted_for_series(table):
    inspected = inspect_data(str(table), {"series": "shop", "time": "day", "value": "sold"}, tasks=[TASK])
    text = draft_recipe(inspected)
    assert "horizon: 12 # number of future values to forecast" in text
    assert "season: 7 # length of a season in steps, from the times" in text
    assert load_data(parse_recipe(read_yaml(text, "draft")[0])).target == "forecast"


@pytest.mark.parametrize(
    ("header", "text", "recognized"),
    [("sold", "", True), ("sales", "", True), ("sales", "what the customer said about it", False)],
)
def test_a_table_of_series_is_recognized(rows, tmp_path, header, text, recognized):
    names = ("shop", "day", header, "promotion", *(["review"] if text else []))
    lines = [(*row, f"{text} {row[1]}") if text else row for row in rows]
    with (tmp_path / "table.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([names, *lines])
    named = {"series": "shop", "value": "sold"} if header == "sold" else None
    assert (inspect_data(str(tmp_path / "table.csv"), named).task.name == TASK) == recognized


def test_a_plan_has_no_classes_and_no_default_rates_of_checkpoints(table):
    stream, recipe = io.StringIO(), recipe_for(table)
    report = plan_stages(recipe)
    print_plan(Console(file=stream, width=200), recipe, report, describe_prefix_caches(report))
    shown = stream.getvalue() + " ".join(report.notes)
    assert "training, 6 validation, 6 test examples\n" in shown and "classes" not in shown
    assert "the default of" not in shown


def test_there_is_no_space_for_forecasts(finished, tmp_path):
    with pytest.raises(InputError, match="is not supported for forecast labels"):
        write_space(finished.folder, tmp_path / "space")


def test_the_card_forecasts_with_plain_transformers(finished):
    card = (finished.folder / "model" / "README.md").read_text(encoding="utf-8")
    assert "from transformers import PatchTSTForPrediction" in card and "pipeline(" not in card
    assert "pipeline_tag: time-series-forecasting" in card
