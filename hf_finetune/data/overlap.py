"""Which examples of one data set are in another one, too."""

from typing import Any

from datasets import Dataset

from hf_finetune.data.tables import hash_image, map_images

__all__ = ["count_shared"]


def count_shared(examples: Dataset, others: Dataset) -> int:
    """Count the examples whose input, an image's file or a text with its pair, is that of one of the others.

    Args:
        examples: With the columns of a split of ``LabelledData``.
        others: The same.
    """
    known = set(_contents(others))
    return sum(content in known for content in _contents(examples))


def _contents(dataset: Dataset) -> list[Any]:
    if "image" in dataset.column_names:
        return list(map_images(dataset, hash_image))
    names = [name for name in ("text", "text_pair") if name in dataset.column_names]
    return list(zip(*(dataset[name] for name in names), strict=True))
