"""The examples that the options are tried on, cut so that an option has something to do."""

import csv
import random
from pathlib import Path

import pyarrow
import pyarrow.parquet as parquet

from benchmarks.inputs import DISHES, REVIEWS

__all__ = ["dishes", "long_tail", "reviews", "skewed_reviews"]

MOST, LEAST = 8, 1  # drawings of the first and of the last class of the long tail
TRAIN, HELD_OUT = 1000, 1000  # reviews of both classes together
POSITIVE, NEGATIVE = 1800, 200  # of the reviews that are skewed


def dishes(folder: Path, seed: int) -> str:
    """Give the dishes as they are: five styles to train on, two others to judge by."""
    return str(DISHES)


def long_tail(folder: Path, seed: int) -> str:
    """Write dishes of which each class has fewer drawings than the one before it, by equal factors.

    The seed decides the order of the classes, and which of their drawings are kept. The test is left whole.

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
    folder.mkdir(parents=True, exist_ok=True)
    parquet.write_table(table.take(sorted(kept)), folder / "train.parquet")
    parquet.write_table(parquet.read_table(DISHES / "test.parquet"), folder / "test.parquet")
    return str(folder)


def reviews(folder: Path, seed: int) -> str:
    """Write as many positive as negative reviews, drawn by the seed."""
    return _some_reviews(folder, seed, TRAIN // 2, TRAIN // 2)


def skewed_reviews(folder: Path, seed: int) -> str:
    """Write reviews of which 9 in 10 are positive to train on, and as many of both to judge by."""
    return _some_reviews(folder, seed, POSITIVE, NEGATIVE)


def _some_reviews(folder: Path, seed: int, positive: int, negative: int) -> str:
    chance = random.Random(seed)
    train: list[tuple[str, str]] = []
    test: list[tuple[str, str]] = []
    for (label, texts), count in zip(sorted(_by_class().items()), (negative, positive), strict=True):
        # those to judge by are the same for every seed: only then can seeds be taken together
        held_out = random.Random(label).sample(texts, HELD_OUT // 2)
        others = sorted(set(texts).difference(held_out))
        test += [(text, label) for text in held_out]
        train += [(text, label) for text in chance.sample(others, count)]
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in (("train", train), ("test", test)):
        columns = {"text": [text for text, _ in rows], "label": [label for _, label in rows]}
        parquet.write_table(pyarrow.table(columns), folder / f"{name}.parquet")
    return str(folder)


def _by_class() -> dict[str, list[str]]:
    by_text: dict[str, str] = {}
    with REVIEWS.open(encoding="utf-8", newline="") as file:
        by_text.update((row["text"], row["label"]) for row in csv.DictReader(file))
    by_class: dict[str, list[str]] = {}
    for text, label in by_text.items():
        by_class.setdefault(label, []).append(text)
    return by_class
