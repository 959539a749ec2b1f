"""Examples that two datasets share."""

from typing import Any

from datasets import Dataset

from hf_finetune.data.tables import hash_image, map_images

__all__ = ["count_shared"]


def count_shared(examples: Dataset, others: Dataset) -> int:
    """Return the number of examples whose input (image file, or text with its pair) is also in another dataset.

    Args:
        examples: Dataset with the columns of a split of ``LabelledData``.
        others: Dataset to compare with, with the same columns.
    """
    known = set(_contents(others))
    return sum(content in known for content in _contents(examples))


def _contents(dataset: Dataset) -> list[Any]:
    if "image" in dataset.column_names:
        return list(map_images(dataset, hash_image))
    names = [name for name in ("text", "text_pair") if name in dataset.column_names]
    return list(zip(*(dataset[name] for name in names), strict=True))
