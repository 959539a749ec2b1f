"""Data and checkpoints of the benchmarks, in a folder that all contenders read."""

import csv
import random
from pathlib import Path

import pyarrow
import pyarrow.compute as compute
import pyarrow.parquet as parquet

from benchmarks.child import run_child

__all__ = ["LITE0", "MINILM", "MPNET", "Inputs"]

ROOT = Path(__file__).parents[1]
DISHES = ROOT / "examples" / "data" / "dishes"
LITE0 = ROOT / "assets" / "efficientnet-lite0"
MINILM = ROOT / "assets" / "all-MiniLM-L6-v2"
MPNET = ROOT / "assets" / "all-mpnet-base-v2"
REVIEWS = ROOT / "assets" / "movie-reviews" / "reviews.csv"
AMAZON = ROOT / "assets" / "amazon-reviews" / "reviews.csv"


class Inputs:
    """Data and checkpoints of a benchmark; each is created only once.

    Args:
        folder: Folder to write them to.
    """

    def __init__(self, folder: Path):
        self.folder = folder

    def dishes(self, train: int | None = None, evaluation: int | None = None) -> str:
        """Return a folder with the dishes: ``train.parquet``, and ``validation.parquet`` with the unseen styles.

        Args:
            train: Number of training images, evenly spread over the file; None uses all.
            evaluation: Number of evaluation images, of classes that occur in training.
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
        """Return a folder with film reviews: ``train.csv`` and ``validation.csv``, drawn with a fixed seed."""
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
        """Return a checkpoint of one of timm's ViTs with random weights."""
        folder = self.folder / f"{architecture}-{image_size}"
        if not folder.exists():
            work = {"architecture": architecture, "image_size": image_size, "checkpoint": str(folder)}
            run_child("vit_checkpoint", work)
        return str(folder)

    def mini_lm(self) -> str:
        """Return the checkpoint of all-MiniLM-L6-v2."""
        return str(MINILM)

    def lite0(self) -> str:
        """Return the checkpoint of EfficientNet-lite0."""
        return str(LITE0)


def evenly_spread(length: int, count: int) -> list[int]:
    """Return row indices at equal distances.

    Args:
        length: Number of rows.
        count: Number of indices; all rows if there are fewer.
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
