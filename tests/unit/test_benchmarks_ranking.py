"""Ingredients as queries, and titles of dishes as candidates."""

import random
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2]))

from benchmarks.ranking.dishes import CANDIDATES, pairs_of

NAMES = [f"{first}{second} stew" for first in "ABCDE" for second in "aeioubcd"]
DISHES = [(name, f"salt; item {number % 7}; item {number}") for number, name in enumerate(NAMES)]


def queries_of(pairs):
    found = {}
    for query, candidate, label in pairs:
        found.setdefault(query, {})[candidate] = label
    return found


def test_each_dish_is_hidden_among_others():
    found = queries_of(pairs_of(DISHES, random.Random(0)))
    assert len(found) == len(DISHES)
    for title, items in DISHES:
        labels = found[items.replace("; ", ", ")]
        assert len(labels) == CANDIDATES and labels[title] == 1 and sum(labels.values()) == 1
    similar = found["salt, item 3, item 3"]
    assert {NAMES[number] for number in (10, 17, 24, 31, 38)} <= similar.keys()


def test_variants_of_a_dish_are_no_wrong_candidates():
    dishes = [*DISHES, ("Baklava", "nuts; honey"), ("Baklava II", "nuts; honey; salt")]
    assert "Baklava II" not in queries_of(pairs_of(dishes, random.Random(0)))["nuts, honey"]


def test_dishes_of_the_same_ingredients_are_one_query():
    dishes = [*DISHES, ("Pancakes", "egg; flour"), ("Noodles", "egg; flour")]
    labels = queries_of(pairs_of(dishes, random.Random(0)))["egg, flour"]
    assert labels["Pancakes"] == labels["Noodles"] == 1 and len(labels) == CANDIDATES
