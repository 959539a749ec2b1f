"""Selection of the examples on which a model is most likely to fail: the longest text, the largest image."""

import io
from typing import Any

import numpy as np
from datasets import Dataset, Image
from PIL import Image as PillowImage
from pyarrow import compute

__all__ = ["extreme_images", "text_lengths"]

LOOKED_AT = 1000
"""Largest number of images whose headers are read; of larger splits, evenly spaced images are sampled."""


def text_lengths(dataset: Dataset) -> np.ndarray:
    """Return the number of characters of each example [examples]; both texts of a pair are counted."""
    columns = [name for name in ("text", "text_pair") if name in dataset.column_names]
    table = dataset.select_columns(columns).with_format("arrow")[:]
    lengths = [compute.utf8_length(table.column(name)).fill_null(0).to_numpy() for name in columns]
    total: np.ndarray = np.sum(lengths, axis=0)
    return total


def extreme_images(dataset: Dataset) -> list[int]:
    """Find the image with the most pixels, and those with the widest and the tallest aspect ratio.

    No image is decoded.

    Args:
        dataset: Dataset with a column ``image``.

    Returns:
        Distinct row indices, at most three; empty if no image size can be read.
    """
    rows = np.unique(np.linspace(0, len(dataset) - 1, min(len(dataset), LOOKED_AT)).astype(int)).tolist()
    stored = dataset.select_columns(["image"]).cast_column("image", Image(decode=False)).with_format(None)
    sizes = [(row, _size(stored[row]["image"])) for row in rows]
    known = [(row, *size) for row, size in sizes if size is not None]
    if not known:
        return []
    largest = max(known, key=lambda one: one[1] * one[2])
    widest = max(known, key=lambda one: one[1] / one[2])
    tallest = max(known, key=lambda one: one[2] / one[1])
    return list(dict.fromkeys(one[0] for one in (largest, widest, tallest)))


def _size(image: Any) -> tuple[int, int] | None:
    """Read width and height from an image's header; None if they cannot be read."""
    try:
        source = io.BytesIO(image["bytes"]) if image.get("bytes") else image["path"]
        with PillowImage.open(source) as opened:
            return opened.size
    except (OSError, ValueError, SyntaxError, AttributeError):
        return None
