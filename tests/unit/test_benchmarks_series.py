"""The series of the competitions: how they are read, runs that are averaged, and the page of the measured runs."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.append(str(Path(__file__).parents[2]))

from benchmarks.contenders.series_run import summary
from benchmarks.inputs import ROOT
from benchmarks.rows import read_rows
from benchmarks.series.competitions import monthly_rows
from benchmarks.series.measure import SETTINGS, Row
from benchmarks.series.page import TITLES, render
from hf_finetune.evaluation.predictions import Predictions, write_predictions
from hf_finetune.targets.forecast import LEVELS, Forecast

METRICS = Forecast.default_metrics


def row(setting=SETTINGS[0], seed=0, mase=1.4, interval=(-0.2, -0.1)):
    scores = dict.fromkeys(METRICS, mase)
    tested = {"difference": -0.15, "interval": list(interval), "verdict": "below"}
    return Row(
        *(setting, seed, 366, 78_536, 1.7, scores),
        interval={name: [1.3, 1.5] for name in METRICS},
        baselines={name: dict.fromkeys(METRICS, 1.55) for name in TITLES},
        differences={name: dict.fromkeys(METRICS, tested) for name in TITLES},
        seconds=60.0,
    )


def test_only_monthly_series_are_read():
    series = {
        "M1": {"period": ["MONTHLY"], "x": [1, 2] + [0] * 11, "xx": [3]},
        "Q1": {"period": ["QUARTERLY"], "x": [1], "xx": [2]},
    }
    rows = monthly_rows("Tourism", series)
    assert len(rows) == 14
    assert rows[0] == ("Tourism M1", "1950-01-01", 1.0) and rows[-1] == ("Tourism M1", "1951-02-01", 3.0)


def written(folder, forecast, validation):
    labels = np.array([[10.0, 20.0, 5.0], [10.0, 20.0, 5.0]])
    (folder / "baselines").mkdir(parents=True)
    names = Forecast().output_names(labels.tolist(), None)

    def write(path, value):
        scores = np.full((2, 2 * len(LEVELS)), float(value))
        groups = {"groups": ("a", "b"), "group_column": "series"}
        write_predictions(path, Predictions(("a", "b"), labels, scores, "forecast", names, **groups))

    write(folder / "predictions.parquet", forecast)
    write(folder / "baselines" / "seasonal_naive.parquet", 15.0)
    stages = [{"validation": {"mase": validation}}]
    (folder / "metrics.json").write_text(json.dumps({"stages": stages}), encoding="utf-8")
    return folder


def test_the_quantiles_of_several_models_are_averaged(tmp_path):
    runs = [written(tmp_path / "first", 10.0, 1.0), written(tmp_path / "second", 20.0, 2.0)]
    found = summary(runs)
    assert (found["series"], found["validation"]) == (2, 1.5)
    assert found["test"]["mase"] == pytest.approx(1.0) == found["baselines"]["seasonal_naive"]["mase"]
    assert found["differences"]["seasonal_naive"]["mase"]["difference"] == pytest.approx(0.0)
    alone = summary(runs[:1])
    assert alone["test"]["mase"] == pytest.approx((0 + 10) / 2 / 5)


def test_the_page_has_a_line_for_each_forecast():
    page = render([row(), row(seed=1, mase=1.5), row(SETTINGS[2])])
    assert "Mean over 2 seeds" in page and "| 1.550 |" in page
    assert f"| **PatchTST, {SETTINGS[0]}** | 1.450 |" in page
    assert "+0.150 | +0.100 to +0.200 |" in page
    assert (
        "; better than seasonal naive forecast, Theta method, " in page and " with every seed. By the" in page
    )


def test_a_verdict_needs_every_seed():
    page = render([row(), row(seed=1, interval=(-0.2, 0.1))])
    assert (
        "; better than seasonal naive forecast, Theta method, " in page
        and " with 1 of 2 seeds. By the" in page
    )
    assert "; worse than seasonal naive forecast" in render([row(interval=(0.1, 0.2))])


def test_the_page_is_that_of_the_stored_rows():
    rows = read_rows(Row, ROOT / "benchmarks" / "results" / "series.json")
    assert rows and (ROOT / "docs" / "tourism.md").read_text(encoding="utf-8") == render(rows)
    assert render([]) == ""
