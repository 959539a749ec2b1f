"""The label column: read as plain values, written with its classes, and put in the form that a loss takes."""

import math
from collections.abc import Sequence
from typing import Any, Literal

from datasets import ClassLabel, Dataset, Features, List, Value

__all__ = ["Target", "class_count", "encode_labels", "label_feature", "read_labels"]

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


def encode_labels(labels: Sequence[Any], classes: int | None) -> list[Any]:
    """Write lists of class indices as rows of zeros and ones; leave class indices and amounts as they are.

    Args:
        labels: One entry for each example.
        classes: Number of classes of multi-label data, None for other data.
    """
    if classes is None:
        return list(labels)
    return [[1.0 if index in set(label) else 0.0 for index in range(classes)] for label in labels]
