"""The data and checkpoints of the benchmarks, in the folder where every contender finds them."""

import csv
import random
from pathlib import Path

import pyarrow
import pyarrow.compute as compute
import pyarrow.parquet as parquet

from benchmarks.child import run_child

__all__ = ["LITE0", "MINILM", "Inputs"]

ROOT = Path(__file__).parents[1]
DISHES = ROOT / "examples" / "data" / "dishes"
LITE0 = ROOT / "assets" / "efficientnet-lite0"
MINILM = ROOT / "assets" / "all-MiniLM-L6-v2"
REVIEWS = ROOT / "assets" / "movie-reviews" / "reviews.csv"
AMAZON = ROOT / "assets" / "amazon-reviews" / "reviews.csv"


class Inputs:
    """Makes what a benchmark trains on; each only once.

    Args:
        folder: Where to.
    """

    def __init__(self, folder: Path):
        self.folder = folder

    def dishes(self, train: int | None = None, evaluation: int | None = None) -> str:
        """Give a folder with the dishes: ``train.parquet``, and as ``validation.parquet`` the styles never seen.

        Args:
            train: Number of training pictures, evenly spread over the file. None is all.
            evaluation: Number of pictures to evaluate on, of classes that are in training.
        """
        folder = self.folder / f"dishes-{train or 'all'}-{evaluation or 'all'}"
        if not folder.exists():
            folder.mkdir(parents=True)
            seen = _some_rows(parquet.read_table(DISHES / "train.parquet"), train)
            parquet.write_table(seen, folder / "train.parquet")
            held_out = parquet.read_table(DISHES / "test.parquet")
            held_out = held_out.filter(
                compute.is_in(held_out["label"], value_set=compute.unique(seen["label"]))
            )
            parquet.write_table(_some_rows(held_out, evaluation), folder / "validation.parquet")
        return str(folder)

    def reviews(self, train: int, evaluation: int) -> str:
        """Give a folder with film reviews: ``train.csv`` and ``validation.csv``, drawn by chance, the same always."""
        folder = self.folder / f"reviews-{train}-{evaluation}"
        if not folder.exists():
            with REVIEWS.open(encoding="utf-8", newline="") as file:
                rows = [(row["text"], row["label"]) for row in csv.DictReader(file)]
            rows = list({text: (text, label) for text, label in rows}.values())
            random.Random(0).shuffle(rows)
            folder.mkdir(parents=True)
            _write_csv(folder / "train.csv", rows[:train])
            _write_csv(folder / "validation.csv", rows[train : train + evaluation])
        return str(folder)

    def vit(self, architecture: str, image_size: int) -> str:
        """Give a checkpoint of one of timm's ViTs with random weights."""
        folder = self.folder / f"{architecture}-{image_size}"
        if not folder.exists():
            work = {"architecture": architecture, "image_size": image_size, "checkpoint": str(folder)}
            run_child("vit_checkpoint", work)
        return str(folder)

    def mini_lm(self) -> str:
        """Give the checkpoint of all-MiniLM-L6-v2."""
        return str(MINILM)

    def lite0(self) -> str:
        """Give the checkpoint of EfficientNet-lite0."""
        return str(LITE0)


def evenly_spread(length: int, count: int) -> list[int]:
    """Choose rows at equal distances.

    Args:
        length: Number of rows.
        count: How many to choose; all if there are fewer.
    """
    count = min(length, count)
    return [position * length // count for position in range(count)]


def _some_rows(table: pyarrow.Table, count: int | None) -> pyarrow.Table:
    return table.take(evenly_spread(len(table), count or len(table)))


def _write_csv(path: Path, rows: list[tuple[str, str]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("text", "label"))
        writer.writerows(rows)
