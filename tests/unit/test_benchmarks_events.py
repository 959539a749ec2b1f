"""The purchases of CDNOW: how they are read, and the page of the measured runs."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2]))

from benchmarks.events.cdnow import read_purchases
from benchmarks.events.measure import SETTINGS, Row
from benchmarks.events.page import render
from benchmarks.inputs import ROOT
from benchmarks.rows import read_rows
from hf_finetune.recipe.load import load_recipe

TEXT = " customer_id  date number_of_cds  dollar_value\n 00001 19970101  1   11.77\n 00002 19970112  5   77.00\n\n"
(SETTING,) = SETTINGS


def row(seed=0, auc=0.7, interval=(-0.2, -0.05)):
    scores = {"roc_auc": auc, "mean_average_precision": 0.6, "log_loss": 0.4}
    tested = {"difference": -0.1, "interval": list(interval), "p_value": 0.01}
    names = ("majority", "rfm", "rfm_boosting")
    return Row(
        *(SETTING, seed, 100, 0.25, scores, [0.6, 0.8]),
        baselines={name: {**scores, "roc_auc": 0.8} for name in names},
        differences=dict.fromkeys(names, tested),
        recency=0.75,
    )


def test_purchases_have_dates_and_dollars():
    assert read_purchases(TEXT) == [("00001", "1997-01-01", "11.77"), ("00002", "1997-01-12", "77.00")]


def test_the_page_has_a_line_for_each_model_and_the_verdict():
    page = render([row(), row(1, 0.72)])
    assert (
        "| recency, frequency and amount, logistic regression | 0.800 | 0.600 | 0.400 | -0.100 | -0.200 to -0.050 |"
        in page
    )
    assert f"| transformer, {SETTING}, from random weights | 0.710 | 0.600 | 0.400 |  |  |" in page
    assert "| recency alone | 0.750 |" in page and "mean over 2 seeds" in page and "25.0%" in page
    assert "is worse than the logistic regression of recency, frequency and amount and their gradient" in page
    assert "boosting with every seed (standard deviation over the seeds 0.0141)" in page
    assert "is not distinguishable from the logistic regression" in render([row(interval=(-0.2, 0.1))])
    assert render([]) == ""


def test_the_stored_rows_are_of_the_shipped_recipe():
    rows = read_rows(Row, ROOT / "benchmarks" / "results" / "events.json")
    assert rows and {entry.setting for entry in rows} == set(SETTINGS)
    assert all(entry.customers == 23_570 for entry in rows)
    assert load_recipe("events/buys-again").metrics == tuple(rows[0].test)
