"""The benchmark of orders: names of ingredients, the division, and the page."""

import csv

import numpy as np
import pytest

from benchmarks.orders import cookbook, page
from benchmarks.orders.cookbook import Order, base_title, ingredient, make
from benchmarks.orders.measure import METRICS, SETTINGS, Row


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("1 cup freshly grated Parmesan cheese", "cheese"),
        ("2 cloves of garlic, minced", "garlic"),
        ("1 lb (450 g) nuts (any type)", "nut"),
        ("3 large potatoes for frying", "potato"),
        ("Salt, to taste", "salt"),
        ("10 cherries", "cherry"),
        ("2", ""),
    ],
)
def test_the_last_noun_is_the_name(line, name):
    assert ingredient(line) == name


def test_numbered_variants_of_a_recipe_are_in_one_split(tmp_path, monkeypatch):
    assert base_title("Baklava II") == base_title("Baklava") == "baklava"
    monkeypatch.setattr(cookbook, "HELD_OUT", 4)
    orders = [
        Order(f"dish {number}{variant}", ("rice", "salt"), base_title(f"dish {number}{variant}"))
        for number in "abcdefgh"
        for variant in ("", " I", " II")
    ]
    monkeypatch.setattr(cookbook, "read_orders", lambda folder: orders)
    splits = {}
    for path in make(0, tmp_path).glob("*.csv"):
        with path.open(encoding="utf-8", newline="") as file:
            splits[path.stem] = {base_title(row["request"]) for row in csv.DictReader(file)}
    assert {name: len(groups) for name, groups in splits.items()} == {"test": 2, "validation": 2, "train": 4}
    assert len(set.union(*splits.values())) == 8
    assert make(0, tmp_path) == tmp_path / "0"


def test_the_page_compares_with_the_best_baseline_and_leaves_out_incomplete_settings():
    rng = np.random.default_rng(0)

    def values(mean):
        return {metric: (mean + rng.normal(scale=0.1, size=50)).round(3).tolist() for metric in METRICS}

    first, second, _ = SETTINGS
    rows = [
        Row(
            setting,
            seed,
            {
                "majority": values(0.2),
                "tf_idf": values(0.5),
                "nearest_neighbors": values(0.4),
                "linear_probe": values(0.45),
                "model": values(0.6),
            },
            60.0,
        )
        for setting, seed in ((first, 0), (first, 1), (second, 0))
    ]
    text = page.render(rows)
    table = [line for line in text.splitlines() if line.startswith("| ")][1:]
    assert [line.split(" | ")[0].strip("| ") for line in table] == [
        "the most frequent items",
        "TF-IDF and one logistic regression per item",
        "nearest neighbors, frozen all-MiniLM-L6-v2",
        "one logistic regression per item, frozen all-MiniLM-L6-v2",
        first,
    ]
    assert "The best baseline is\n*TF-IDF and one logistic regression per item*." in text
    assert "50 test titles for each of 2 seeds" in " ".join(text.split())
    assert table[1].endswith("|  |  |  |") and table[-1].endswith("| 60 |")
    assert "| +0." in table[-1] and "| -0." in table[0]
