"""Real datasets of 200 to 5,000 images or texts, each divided into training and test examples by a seed."""

import csv
import io
import json
import random
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import pyarrow.parquet as parquet
from PIL import Image
from sklearn.datasets import load_digits

from benchmarks.inputs import AMAZON, DISHES, LITE0, MINILM, REVIEWS, ROOT
from benchmarks.small.sets import FEWEST, FEWEST_DISHES, append_text
from benchmarks.small.sets import SETS as SMALL

__all__ = ["SETS", "AutoSet", "make"]

FOLDER = ROOT / "assets" / "auto"
PACKAGES = ROOT / "assets" / "small"

Content = Path | str | bytes
ByClass = Mapping[str, Mapping[str, Content]]


@dataclass(frozen=True)
class AutoSet:
    """Dataset and the way it is divided.

    Attributes:
        about: Content and source.
        read: Function that returns all examples of each class by hash; images are paths or files in memory.
        recipe: Name of the shipped recipe for this kind of data.
        checkpoint: Folder of the checkpoint of contenders that choose none.
        fewest: Minimum number of examples of a class.
        most: Number of examples that are taken of a class.
        test: Fraction of the examples of a class that is in the test split.
    """

    about: str
    read: Callable[[], ByClass]
    recipe: str
    checkpoint: Path
    fewest: int = FEWEST
    most: int = 60
    test: float = 0.3

    @property
    def has_images(self) -> bool:
        """Whether the examples are images, in class folders."""
        return self.checkpoint == LITE0


def make(name: str, seed: int, folder: Path = FOLDER) -> Path:
    """Return the folder of a dataset as a seed divides it, which is built if it does not exist.

    Args:
        name: Name in ``SETS``.
        seed: Seed of the test split.
        folder: Folder of the datasets.

    Raises:
        AssetError: If a package cannot be downloaded.
    """
    place = folder / f"{name}-{seed}"
    if not place.is_dir():
        made = folder / f".{name}-{seed}.part"
        shutil.rmtree(made, ignore_errors=True)
        for split, label, digest, content in _divided(SETS[name], seed):
            _write(made, split, label, digest, content)
        made.rename(place)
    return place


def _divided(of: AutoSet, seed: int) -> Iterator[tuple[str, str, str, Content]]:
    """Yield split, class, hash and content of each example."""
    for label, examples in sorted(of.read().items()):
        if len(examples) < of.fewest:
            continue
        taken = sorted(examples)[: of.most]
        random.Random(f"{seed} {label}").shuffle(taken)
        for number, digest in enumerate(taken):
            yield (
                "test" if number < round(len(taken) * of.test) else "train",
                label,
                digest,
                examples[digest],
            )


def _write(folder: Path, split: str, label: str, digest: str, content: Content) -> None:
    if isinstance(content, str):
        append_text(folder / f"{split}.csv", digest, content, label)
        return
    image_bytes = content if isinstance(content, bytes) else content.read_bytes()
    with Image.open(io.BytesIO(image_bytes)) as image:
        place = folder / split / label / f"{digest[:16]}.{str(image.format).lower()}"
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(image_bytes)


def _small(name: str) -> Callable[[], ByClass]:
    return lambda: SMALL[name].read(PACKAGES)


def _dishes() -> ByClass:
    """Read the drawings of all styles, each content once."""
    found: dict[str, dict[str, Content]] = {}
    for split in ("train", "test"):
        table = parquet.read_table(DISHES / f"{split}.parquet", columns=["image", "label"])
        names = json.loads(table.schema.metadata[b"huggingface"])["info"]["features"]["label"]["names"]
        for image, label in zip(table["image"].to_pylist(), table["label"].to_pylist(), strict=True):
            found.setdefault(names[label], {})[sha256(image["bytes"]).hexdigest()] = image["bytes"]
    return found


def _digits() -> ByClass:
    """Read the handwritten digits of 8 x 8 pixels with 17 gray levels."""
    digits = load_digits()
    found: dict[str, dict[str, Content]] = {}
    for pixels, label in zip(digits.images, digits.target, strict=True):
        file = io.BytesIO()
        Image.fromarray((pixels * 255 / 16).round().astype("uint8")).save(file, "PNG")
        found.setdefault(str(label), {})[sha256(file.getvalue()).hexdigest()] = file.getvalue()
    return found


def _reviews(path: Path) -> Callable[[], ByClass]:
    def read() -> ByClass:
        found: dict[str, dict[str, Content]] = {}
        with path.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                found.setdefault(row["label"], {})[sha256(row["text"].encode()).hexdigest()] = row["text"]
        return found

    return read


IMAGES, TEXTS = "image/vit-folder", "text/reviews-csv"

SETS: Mapping[str, AutoSet] = {
    "dishes": AutoSet(
        "drawings of 81 dishes in seven styles, of the examples", _dishes, IMAGES, LITE0, fewest=6
    ),
    "stamps": AutoSet(SMALL["stamps"].about, _small("stamps"), IMAGES, LITE0),
    "food": AutoSet(SMALL["food"].about, _small("food"), IMAGES, LITE0),
    "nature": AutoSet(SMALL["nature"].about, _small("nature"), IMAGES, LITE0),
    "digits": AutoSet("handwritten digits of 8 x 8 pixels, from scikit-learn", _digits, IMAGES, LITE0),
    "films": AutoSet(
        "film reviews, positive or negative, of the examples",
        _reviews(REVIEWS),
        TEXTS,
        MINILM,
        most=1000,
        test=0.5,
    ),
    "products": AutoSet(
        "product reviews, positive or negative, of the examples",
        _reviews(AMAZON),
        TEXTS,
        MINILM,
        most=500,
        test=0.5,
    ),
    "sayings": AutoSet(SMALL["sayings"].about, _small("sayings"), TEXTS, MINILM, most=120),
    "kitchen": AutoSet(SMALL["kitchen"].about, _small("kitchen"), TEXTS, MINILM, fewest=FEWEST_DISHES),
}
"""Datasets by name."""
