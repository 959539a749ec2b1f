"""The label column: read as plain values, written with its classes, and put in the form that a loss takes."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from datasets import ClassLabel, Dataset, Features, List, Value

__all__ = [
    "TRAINING_LABEL",
    "UNKNOWN",
    "Target",
    "class_count",
    "class_order",
    "encode_batch",
    "encode_labels",
    "label_feature",
    "label_text",
    "read_labels",
    "training_labels",
]

UNKNOWN = "unknown"
"""Column with the classes of an example of which the data does not say whether they hold."""
TRAINING_LABEL = "training_label"
"""Column with the probability of each class times the weight of the example, which the loss takes."""


Target = Literal["single_label", "multi_label", "regression"]


def read_labels(dataset: Dataset, column: str) -> tuple[list[Any], tuple[str, ...] | None]:
    """Read a label column as plain values, with names for class indices, and the names that it declares.

    What is missing is None: nulls, NaN, empty strings, and index -1 of a column that declares its classes.
    """
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


def label_text(label: Any) -> str:
    """Return a label as a class name. 1.0 and 1 are one class."""
    return str(int(label)) if isinstance(label, float) and label.is_integer() else str(label)


def class_order(name: str) -> tuple[bool, float, str]:
    """Return the sort key of a class: numbers by size, then texts by their letters; '2' comes before '10'."""
    try:
        number = float(name)
    except ValueError:
        number = math.nan
    return (False, number, name) if math.isfinite(number) else (True, 0.0, name)


def label_feature(target: Target, label_names: Sequence[str]) -> ClassLabel | List | Value:
    """Give the type of the label column: it carries the classes along with the data."""
    if target == "regression":
        return Value("float32")
    classes = ClassLabel(names=list(label_names))
    return List(classes) if target == "multi_label" else classes


def class_count(features: Features) -> int | None:
    """Count the classes of multi-label data, for ``encode_labels``. None for other data."""
    feature = features.get("label")
    return len(feature.feature.names) if isinstance(feature, List) else None


def training_labels(
    labels: Sequence[int],
    label_names: Sequence[str],
    weights: Sequence[float] | None,
    shares: Sequence[Mapping[str, float] | None] | None,
) -> list[list[float]]:
    """Return the weight of each example, spread over the classes by their probability [examples, classes].

    Args:
        labels: Class index of each example.
        label_names: The classes in their order.
        weights: Weight of each example; None is 1 for all.
        shares: Probability of each class for each example; None is 1 for the class of its label.
    """
    rows = []
    for row, label in enumerate(labels):
        weight = 1.0 if weights is None else float(weights[row])
        given = shares[row] if shares is not None else None
        named = {label_names[label]: 1.0} if given is None else given
        rows.append([weight * named.get(name, 0.0) for name in label_names])
    return rows


def encode_labels(
    labels: Sequence[Any], classes: int | None, unknown: Sequence[Sequence[int]] | None = None
) -> list[Any]:
    """Write lists of class indices as rows of zeros and ones; leave class indices and amounts as they are.

    Args:
        labels: One entry for each example.
        classes: Number of classes of multi-label data, None for other data.
        unknown: Indices of the classes of each example that become nan; None if all are known.
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
    """Return the labels of a batch in the form that a loss takes.

    Args:
        batch: With the column ``label``, and perhaps ``unknown`` and ``training_label``.
        classes: Number of classes of multi-label data, None for other data.
        training: Whether ``training_label`` is taken where there is one; metrics take the class itself.
    """
    if training and TRAINING_LABEL in batch:
        return list(batch[TRAINING_LABEL])
    return encode_labels(batch["label"], classes, batch.get(UNKNOWN))
