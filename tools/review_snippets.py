"""Labelled snippets of film and product reviews, from the source distribution of vaderSentiment."""

import csv
import io
import tarfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from archives import AssetError, Source

__all__ = ["Review", "label_reviews", "make_amazon_reviews", "make_reviews", "read_reviews"]

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
