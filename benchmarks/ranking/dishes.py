"""Ingredients as queries, and titles of dishes as candidates, from the recipes of the Wikibooks Cookbook."""

import csv
import random
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer

from benchmarks.inputs import ROOT
from benchmarks.orders.cookbook import base_title
from benchmarks.orders.cookbook import make as make_orders

__all__ = ["CANDIDATES", "SIMILAR", "make", "pairs_of"]

FOLDER = ROOT / "assets" / "ranking"
CANDIDATES = 20
"""Number of candidates of each query: the dish itself, similar dishes, and random ones."""
SIMILAR = 9
"""Number of candidates with the most similar ingredients."""


def make(seed: int, folder: Path = FOLDER) -> Path:
    """Return a folder with ``train.csv``, ``validation.csv`` and ``test.csv``, which is built if it does not exist.

    A query is the list of the ingredients of a dish, and its candidates are the title of this dish and those of 19
    others of the same split: the 9 dishes with the most similar ingredients, and 10 random ones. They are in random
    order. Ingredients of a test dish are no query of another split. Similarity is that of the ingredients, not that of
    query and title, so that no way of scoring pairs is at a disadvantage.

    Args:
        seed: Seed of the division and of the random candidates.
        folder: Folder of the datasets.

    Raises:
        AssetError: If the package of the recipes cannot be downloaded.
    """
    place = folder / str(seed)
    if not place.is_dir():
        orders = make_orders(seed)
        made = folder / f".{seed}.part"
        shutil.rmtree(made, ignore_errors=True)
        made.mkdir(parents=True)
        taken: set[str] = set()
        for split in ("test", "validation", "train"):
            with (orders / f"{split}.csv").open(encoding="utf-8", newline="") as file:
                rows = csv.DictReader(file)
                dishes = [(row["request"], row["items"]) for row in rows if row["items"] not in taken]
            taken.update(items for _, items in dishes)
            with (made / f"{split}.csv").open("w", encoding="utf-8", newline="") as file:
                table = csv.writer(file)
                table.writerow(["query", "candidate", "label"])
                table.writerows(pairs_of(dishes, random.Random(seed)))
        made.rename(place)
    return place


def pairs_of(dishes: Sequence[tuple[str, str]], rng: random.Random) -> Iterator[tuple[str, str, int]]:
    """Yield query, candidate and label of each pair.

    Dishes with the same ingredients are one query with several right candidates. A variant of a right dish, such as
    ``Baklava II``, is no other candidate.

    Args:
        dishes: Title and ingredients, separated by semicolons, of each dish.
        rng: Random number generator.
    """
    titles: dict[str, list[str]] = {}
    for title, items in dishes:
        if title not in titles.setdefault(items, []):
            titles[items].append(title)
    queries = list(titles)
    vectorizer = TfidfVectorizer(analyzer=lambda items: items.split("; "))
    vectors = vectorizer.fit_transform(queries)
    for number, query in enumerate(queries):
        right = {base_title(title) for title in titles[query]}
        likeness = (vectors @ vectors[number].T).toarray().ravel()
        order = [other for other in np.argsort(-likeness, kind="stable").tolist() if other != number]
        others = [
            title for other in order for title in titles[queries[other]] if base_title(title) not in right
        ]
        others = list(dict.fromkeys(others))
        similar, rest = others[:SIMILAR], others[SIMILAR:]
        wrong = [*similar, *rng.sample(rest, max(0, CANDIDATES - len(titles[query]) - len(similar)))]
        candidates = [(title, 1) for title in titles[query]] + [(title, 0) for title in wrong]
        rng.shuffle(candidates)
        yield from ((query.replace("; ", ", "), title, label) for title, label in candidates)
