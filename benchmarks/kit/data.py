"""Data of the compared settings, chosen so that the options can have an effect."""

import csv
import random
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet as parquet

from benchmarks.inputs import AMAZON, DISHES, REVIEWS

__all__ = [
    "cut",
    "dishes",
    "long_tail",
    "other_reviews",
    "other_style",
    "reviews",
    "reviews_and_products",
    "skewed_reviews",
]

MOST, LEAST = 8, 1  # drawings of the largest and the smallest class of the long tail
TRAIN, HELD_OUT = 1000, 1000  # reviews of both classes together
POSITIVE, NEGATIVE = 1800, 200  # of the imbalanced reviews
TARGET_STYLE = "fluent"
SOURCE_STYLES = ("emojione", "noto", "noto-v1", "streamline")
PRODUCTS, UNLABELLED = 1000, 1000  # sentences about products (training) and films (unlabeled target)


def cut() -> dict[str, Any]:
    """Return the constants by which examples are drawn; rows measured with other values are out of date."""
    return {
        name: value
        for name, value in globals().items()
        if name.isupper() and isinstance(value, int | str | tuple)
    }


def dishes(folder: Path, seed: int) -> str:
    """Return the unchanged dishes: five styles for training, two others for the test."""
    return str(DISHES)


def long_tail(folder: Path, seed: int) -> str:
    """Write dishes whose class sizes decrease by equal factors.

    The seed determines the order of the classes, and the drawings that are kept. The test split is complete.

    Source: Cui et al. 2019, n_k = n x mu^k.
    """
    chance = random.Random(seed)
    table = parquet.read_table(DISHES / "train.parquet")
    by_class: dict[str, list[int]] = {}
    for row, label in enumerate(table["label"].to_pylist()):
        by_class.setdefault(label, []).append(row)
    classes = sorted(by_class)
    chance.shuffle(classes)
    shrink = (LEAST / MOST) ** (1 / (len(classes) - 1))
    kept: list[int] = []
    for index, label in enumerate(classes):
        rows = by_class[label]
        kept += chance.sample(rows, min(len(rows), round(MOST * shrink**index)))
    _write(folder, train=table.take(sorted(kept)), test=parquet.read_table(DISHES / "test.parquet"))
    return str(folder)


def reviews(folder: Path, seed: int) -> str:
    """Write equally many positive and negative reviews, drawn by the seed."""
    return _some_reviews(folder, seed, TRAIN // 2, TRAIN // 2)


def reviews_and_products(folder: Path, seed: int) -> str:
    """Write reviews like ``reviews``, and half as many rated sentences about products.

    The sentences are in a folder next to it, ``FOLDER-products``.
    """
    chance = random.Random(seed)
    products = {label: chance.sample(texts, TRAIN // 4) for label, texts in sorted(_by_class(AMAZON).items())}
    _write(Path(f"{folder}-products"), train=_labelled(products))
    return reviews(folder, seed)


def skewed_reviews(folder: Path, seed: int) -> str:
    """Write training reviews of which 9 in 10 are positive, and a balanced test split."""
    return _some_reviews(folder, seed, POSITIVE, NEGATIVE)


def other_style(folder: Path, seed: int) -> str:
    """Write dishes of four styles for training; of a fifth style, half of each class for the test, and half unlabeled.

    The unlabeled ones are in a folder next to it, ``FOLDER-unlabelled``.
    """
    table = parquet.read_table(DISHES / "train.parquet")
    styles, labels = table["style"].to_pylist(), table["label"].to_pylist()
    by_class: dict[str, list[int]] = {}
    for row, style in enumerate(styles):
        if style == TARGET_STYLE:
            by_class.setdefault(labels[row], []).append(row)
    chance = random.Random(0)  # the same for every seed, so that seeds can be combined
    unlabelled, test = [], []
    for label in sorted(by_class):
        rows = chance.sample(by_class[label], len(by_class[label]))
        unlabelled += rows[: len(rows) // 2]
        test += rows[len(rows) // 2 :]
    train = [row for row, style in enumerate(styles) if style in SOURCE_STYLES]
    _write(folder, train=table.take(train), test=table.take(test))
    _write(Path(f"{folder}-unlabelled"), train=table.take(unlabelled).select(["image"]))
    return str(folder)


def other_reviews(folder: Path, seed: int) -> str:
    """Write sentences about products for training, some about films for the test, and others about films unlabeled.

    The unlabeled ones are in a folder next to it, ``FOLDER-unlabelled``.
    """
    films, products = _by_class(REVIEWS), _by_class(AMAZON)
    held_out = {label: _held_out(label, texts) for label, texts in films.items()}
    left = sorted(text for label, texts in films.items() for text in set(texts).difference(held_out[label]))
    chance = random.Random(seed)
    chosen = chance.sample(left, UNLABELLED)
    products = {label: chance.sample(texts, PRODUCTS // 2) for label, texts in sorted(products.items())}
    _write(folder, train=_labelled(products), test=_labelled(held_out))
    _write(Path(f"{folder}-unlabelled"), train=pyarrow.table({"text": chosen}))
    return str(folder)


def _some_reviews(folder: Path, seed: int, positive: int, negative: int) -> str:
    chance = random.Random(seed)
    by_class = _by_class(REVIEWS)
    train, test = {}, {}
    for (label, texts), count in zip(sorted(by_class.items()), (negative, positive), strict=True):
        test[label] = _held_out(label, texts)
        train[label] = chance.sample(sorted(set(texts).difference(test[label])), count)
    _write(folder, train=_labelled(train), test=_labelled(test))
    return str(folder)


def _held_out(label: str, texts: list[str]) -> list[str]:
    """Return the test texts: the same for every seed, so that seeds can be combined."""
    return random.Random(label).sample(texts, HELD_OUT // 2)


def _labelled(by_class: dict[str, list[str]]) -> pyarrow.Table:
    rows = [(text, label) for label, texts in sorted(by_class.items()) for text in texts]
    return pyarrow.table({"text": [text for text, _ in rows], "label": [label for _, label in rows]})


def _write(folder: Path, **tables: pyarrow.Table) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, table in tables.items():
        parquet.write_table(table, folder / f"{name}.parquet")


def _by_class(path: Path) -> dict[str, list[str]]:
    by_text: dict[str, str] = {}
    with path.open(encoding="utf-8", newline="") as file:
        by_text.update((row["text"], row["label"]) for row in csv.DictReader(file))
    by_class: dict[str, list[str]] = {}
    for text, label in by_text.items():
        by_class.setdefault(label, []).append(text)
    return by_class
