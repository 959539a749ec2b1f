"""Checks and sizes of the undecoded images of a dataset."""

import io
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
from datasets import Dataset, Image
from PIL import Image as PillowImage

from hf_finetune.tasks.image.files import ImageError, ImageFacts, NoImageError, read_image, source_of
from hf_finetune.tasks.image.notes import ImageNotes
from hf_finetune.tasks.stored import map_files

__all__ = ["ImageCheck", "extreme_images", "image_sizes", "map_images"]

MAX_HEADERS_READ = 1000
"""Largest number of images whose headers are read; of larger splits, evenly spaced images are sampled."""

Result = TypeVar("Result")


def map_images(dataset: Dataset, function: Callable[[dict[str, Any]], Result]) -> Iterator[Result]:
    """Apply a function to each undecoded image, as ``map_files`` does."""
    return map_files(dataset, "image", Image(decode=False), function)


class ImageCheck:
    """Check that images can be read: each is decoded once, as in training."""

    def __init__(self) -> None:
        self.pictures = ImageNotes()

    def faults(self, dataset: Dataset, ids: Sequence[str]) -> list[str | None]:
        """Return the reason why each image cannot be read; None if it can.

        Args:
            dataset: Dataset with an ``image`` column.
            ids: Name of each image.
        """
        faults: list[str | None] = []
        for name, (fault, facts) in zip(ids, map_images(dataset, _inspect), strict=True):
            faults.append(fault)
            if facts is not None:
                self.pictures.add(name, facts)
        return faults

    def notes(self) -> list[str]:
        """Return messages on conversions of the images."""
        return self.pictures.sentences()


def _inspect(image: dict[str, Any] | None) -> tuple[str | None, ImageFacts | None]:
    try:
        return None, read_image(source_of(image))[1]
    except FileNotFoundError:
        return "no such file", None
    except NoImageError:
        return "no image in this row", None
    except ImageError as error:
        return str(error), None
    except Exception as error:  # decoders raise exceptions of any class for damaged files
        return f"a damaged file ({type(error).__name__}: {error})", None


def extreme_images(dataset: Dataset) -> list[int]:
    """Find the image with the most pixels, and those with the widest and the tallest aspect ratio.

    No image is decoded.

    Args:
        dataset: Dataset with a column ``image``.

    Returns:
        Distinct row indices, at most three; empty if no image size can be read.
    """
    known = image_sizes(dataset)
    if not known:
        return []
    largest = max(known, key=lambda row: known[row][0] * known[row][1])
    widest = max(known, key=lambda row: known[row][0] / known[row][1])
    tallest = max(known, key=lambda row: known[row][1] / known[row][0])
    return list(dict.fromkeys([largest, widest, tallest]))


def image_sizes(dataset: Dataset) -> dict[int, tuple[int, int]]:
    """Return the width and height of images by row, read from their headers.

    Args:
        dataset: Dataset with a column ``image``; of a large one, evenly spaced rows are read.

    Returns:
        Sizes in pixels; without the images whose header cannot be read.
    """
    rows = np.unique(
        np.linspace(0, len(dataset) - 1, min(len(dataset), MAX_HEADERS_READ)).astype(int)
    ).tolist()
    stored = dataset.select_columns(["image"]).cast_column("image", Image(decode=False)).with_format(None)
    sizes = ((row, _size(stored[row]["image"])) for row in rows)
    return {row: size for row, size in sizes if size is not None}


def _size(image: Any) -> tuple[int, int] | None:
    """Read width and height from an image's header; None if they cannot be read."""
    try:
        source = io.BytesIO(image["bytes"]) if image.get("bytes") else image["path"]
        with PillowImage.open(source) as opened:
            return opened.size
    except (OSError, ValueError, SyntaxError, AttributeError):
        return None
