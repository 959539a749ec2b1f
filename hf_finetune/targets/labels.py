"""Label columns: read as plain values, typed with their class names, and encoded for the loss."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datasets import Dataset, Features

__all__ = [
    "TRAINING_LABEL",
    "UNKNOWN",
    "TargetName",
    "class_count",
    "encode_batch",
    "encode_labels",
    "read_labels",
    "training_labels",
]

UNKNOWN = "unknown"
"""Column with the indices of the classes whose label is missing (partially labeled multi-label data)."""
TRAINING_LABEL = "training_label"
"""Column with the probability of each class times the weight of the example: the target of the loss."""


TargetName = str


def read_labels(dataset: "Dataset", column: str) -> tuple[list[Any], tuple[str, ...] | None]:
    """Read a label column as plain values, with class indices replaced by class names.

    Missing values become None: nulls, NaN, empty strings, and index -1 of a column that declares its classes.

    Args:
        dataset: Dataset with the column.
        column: Name of the column.

    Returns:
        The labels, and the class names that the column declares, or None if it declares none.
    """
    from datasets import ClassLabel

    feature = dataset.features[column]
    element = getattr(feature, "feature", None)
    classes = (
        element if isinstance(element, ClassLabel) else feature if isinstance(feature, ClassLabel) else None
    )
    names = None if classes is None else tuple(classes.names)

    def plain(value: Any) -> Any:
        if isinstance(value, list):
            return [plain(item) for item in value]
        if value is None or (isinstance(value, float) and math.isnan(value)):
            return None
        if isinstance(value, str) and not value.strip():
            return None
        if names is not None:
            return names[value] if value >= 0 else None
        return value

    return [plain(value) for value in dataset[column][:]], names


def class_count(features: "Features") -> int | None:
    """Return the number of classes of multi-label data, for ``encode_labels``; None for other data."""
    from datasets import ClassLabel

    element = getattr(features.get("label"), "feature", None)
    return len(element.names) if isinstance(element, ClassLabel) else None


def training_labels(
    labels: Sequence[int],
    label_names: Sequence[str],
    weights: Sequence[float] | None,
    soft_labels: Sequence[Mapping[str, float] | None] | None,
) -> list[list[float]]:
    """Return weighted soft labels: the class probabilities of each example times its weight.

    Args:
        labels: Class index of each example.
        label_names: Class names in index order.
        weights: Weight of each example; None means 1 for all.
        soft_labels: Class probabilities of each example, by class name; None means 1 for the class of its label.

    Returns:
        One row per example, [examples, classes].
    """
    rows = []
    for row, label in enumerate(labels):
        weight = 1.0 if weights is None else float(weights[row])
        probabilities = soft_labels[row] if soft_labels is not None else None
        by_name = {label_names[label]: 1.0} if probabilities is None else probabilities
        rows.append([weight * by_name.get(name, 0.0) for name in label_names])
    return rows


def encode_labels(
    labels: Sequence[Any], classes: int | None, unknown: Sequence[Sequence[int]] | None = None
) -> list[Any]:
    """Encode multi-label targets as multi-hot rows; return class indices and continuous targets unchanged.

    Args:
        labels: Label of each example: a list of class indices for multi-label data.
        classes: Number of classes of multi-label data, None for other data.
        unknown: Indices of the classes of each example that become nan; None if all are known.

    Returns:
        Rows of 0.0, 1.0 and nan, [examples, classes], for multi-label data; else ``labels`` as a list.
    """
    if classes is None:
        return list(labels)
    rows = [[1.0 if index in set(label) else 0.0 for index in range(classes)] for label in labels]
    for row, indices in zip(rows, unknown or (), strict=False):
        for index in indices:
            row[index] = math.nan
    return rows


def encode_batch(
    batch: Mapping[str, Sequence[Any]], classes: int | None, *, training: bool = False
) -> list[Any]:
    """Return the labels of a batch in the form that the loss expects.

    Args:
        batch: Columns of the batch: ``label``, and optionally ``unknown`` and ``training_label``.
        classes: Number of classes of multi-label data, None for other data.
        training: Whether to return ``training_label`` if the batch has it; metrics need ``label`` itself.
    """
    if training and TRAINING_LABEL in batch:
        return list(batch[TRAINING_LABEL])
    return encode_labels(batch["label"], classes, batch.get(UNKNOWN))
