"""The ratings of MovieLens: how they are read and divided, and the page of the measured runs."""

import json
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2]))

from benchmarks.inputs import ROOT
from benchmarks.items.measure import SETTINGS, Row
from benchmarks.items.movielens import film_names, make_lists, read_ratings
from benchmarks.items.page import TITLES, render
from benchmarks.rows import read_rows
from hf_finetune.recipe.load import load_recipe

FILMS = "\n".join(
    [
        "item_id\tmovie_title\trelease_year\tclass",
        "1\tAlien\t1979\tHorror",
        "2\tHeat\t1995\t",
        "3\tHeat\t1995\t",
        "4\tunknown\t\t",
    ]
)
RATINGS = "user_id\titem_id\trating\ttimestamp\n7\t1\t3\t881250949\n7\t4\t1\t881250950\n"
METRICS = load_recipe("items/next-film").metrics


def row(setting="by date", seed=0, rate=0.12, interval=(-0.02, 0.01)):
    scores = dict.fromkeys(METRICS, rate)
    tested = {"difference": -0.01, "interval": list(interval), "p_value": 0.2}
    return Row(
        *(setting, seed, 1682, 389, 30, scores, scores),
        interval={name: [0.1, 0.15] for name in METRICS},
        baselines={name: dict.fromkeys(METRICS, 0.13) for name in TITLES},
        differences={name: dict.fromkeys(METRICS, tested) for name in TITLES},
    )


def test_films_have_distinct_names():
    names = film_names(FILMS)
    assert names == {"1": "Alien (1979)", "2": "Heat (1995) [2]", "3": "Heat (1995) [3]", "4": "unknown"}
    assert read_ratings(RATINGS, names) == [
        ("7", "1997-12-04T15:55:49", "Alien (1979)"),
        ("7", "1997-12-04T15:55:50", "unknown"),
    ]


def test_the_last_films_are_left_out(tmp_path):
    table = tmp_path / "movielens.csv"
    lines = [
        "user,time,film",
        "a,2024-01-03,z",
        "a,2024-01-01,x",
        "a,2024-01-02,y",
        "a,2024-01-04,w",
        "b,2024-01-01,x",
    ]
    table.write_text("\n".join(lines), encoding="utf-8")
    folder = make_lists(table)
    read = {
        path.stem: [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        for path in folder.iterdir()
    }
    assert read == {
        "train": [{"items": ["x"], "next_item": "y"}],
        "validation": [{"items": ["x", "y"], "next_item": "z"}],
        "test": [{"items": ["x", "y", "z"], "next_item": "w"}],
    }


def test_the_page_has_a_table_for_each_division():
    page = render([row(), row(seed=1, rate=0.14), row("leave one out"), row("leave one out", 1)])
    assert "mean over 2 seeds" in page.lower()
    assert "## Division by date" in page and "## Leave one out" in page
    assert "| Markov chain | 0.130 | 0.130 | 0.130 | -0.010 | -0.020 to +0.010 |" in page
    assert "| **BERT, 2 layers, hidden size 64** | 0.130 | 0.130 | 0.130 |  |  |" in page
    assert "389 test users; 30 of their last films" in page
    assert (
        "The 95 % interval of BERT's HR@10 is 0.100 to 0.150 with seed 0 (standard deviation over the seeds 0.0141)."
        in page
    )
    assert "It is not distinguishable from most frequent labels, popularity" in page
    assert "It is better than most frequent labels" in render([row(interval=(0.01, 0.02))])
    assert render([]) == ""


def test_the_stored_rows_are_of_the_shipped_recipe():
    rows = read_rows(Row, ROOT / "benchmarks" / "results" / "items.json")
    assert rows and {entry.setting for entry in rows} == set(SETTINGS)
    assert {entry.items for entry in rows} == {1682}
    assert set(METRICS) == set(rows[0].test)
