"""Encoding of labels for training: class indices, lists of class indices, or continuous targets."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from hf_finetune.errors import Problem, join_quoted, suggestion
from hf_finetune.targets import ASSUMED_TARGET, TARGETS, requested_target
from hf_finetune.targets import Target as Kind
from hf_finetune.targets.labels import TargetName
from hf_finetune.targets.names import label_text
from hf_finetune.targets.reading import (
    LABEL_LOCATION,
    LabelSummary,
    flat_labels,
    rows_where,
    summarize_labels,
)

__all__ = ["Targets", "encode_known", "find_unknown_classes", "resolve_targets"]

_MOST_UNKNOWN = 10


@dataclass(frozen=True)
class Targets:
    """Encoded labels of every split.

    Attributes:
        target: Label type: single-label, multi-label or regression.
        label_names: Class names in index order. ``("label",)`` for regression.
        labels: For each split, a class index, a sorted list of class indices, or a float per example.
        notes: Messages to the user on how labels were interpreted.
    """

    target: TargetName
    label_names: tuple[str, ...]
    labels: Mapping[str, list[Any]]
    notes: tuple[str, ...]


def resolve_targets(
    values: Mapping[str, Sequence[Any]],
    ids: Mapping[str, Sequence[str]],
    declared: Sequence[str] | None,
    requested: TargetName | Literal["auto"],
) -> tuple[Targets | None, list[Problem]]:
    """Determine the label type, and encode the labels.

    Args:
        values: Labels of each split, as returned by ``read_labels``.
        ids: Name of each example, for the messages.
        declared: Class names in index order, if the data declares them.
        requested: Label type, or ``auto`` to infer it.

    Returns:
        The targets and no problems, or None and all problems.
    """
    problems = _find_missing(values, ids)
    present = [value for split in values for value in values[split] if value is not None]
    kind, labels, type_problems = _infer_target(present, requested)
    problems += type_problems or kind.value_problems(values, ids)
    if problems:
        return None, problems
    notes = kind.label_type_notes(labels, inferred=requested == "auto")
    names = kind.output_names(present, declared)
    indices = {name: index for index, name in enumerate(names)}
    encoded = {split: [kind.encode(value, indices) for value in values[split]] for split in values}
    if kind.has_classes:
        notes += _note_unused(names, encoded)
    return Targets(kind.name, names, encoded, notes), []


def encode_known(
    split: str, values: Sequence[Any], ids: Sequence[str], target: TargetName, label_names: Sequence[str]
) -> tuple[list[Any], list[Problem]]:
    """Encode the labels of one split for a model with known classes.

    Args:
        split: Name of the split, for the messages.
        values: Labels, as returned by ``read_labels``.
        ids: Name of each example, for the messages.
        target: Label type of the model.
        label_names: Class names of the model in index order.

    Returns:
        Encoded labels and no problems, or an empty list and all problems.
    """
    kind = TARGETS[target]
    problems = _find_missing({split: values}, {split: ids})
    present = [value for value in values if value is not None]
    _, _, type_problems = _infer_target(present, target, place="The model's target", repair="")
    problems += type_problems or kind.value_problems({split: values}, {split: ids})
    indices = {name: index for index, name in enumerate(label_names)}
    if kind.has_classes and not type_problems:
        rows: dict[str, list[str]] = {}
        for value, row in zip(values, ids, strict=True):
            for label in flat_labels([value]):
                if label is not None and label_text(label) not in indices:
                    rows.setdefault(label_text(label), []).append(row)
        problems += _find_unknown(rows, label_names)
    return ([] if problems else [kind.encode(value, indices) for value in values]), problems


def find_unknown_classes(
    names: Sequence[Sequence[str]] | None, ids: Sequence[str], label_names: Sequence[str]
) -> list[Problem]:
    """Return problems for the classes of examples that a model does not have.

    Args:
        names: Class names of each example; None if there are none.
        ids: Name of each example, for the messages.
        label_names: Class names of the model.
    """
    rows: dict[str, list[str]] = {}
    for classes, row in zip(names or (), ids, strict=False):
        for name in set(classes) - set(label_names):
            rows.setdefault(name, []).append(row)
    return _find_unknown(rows, label_names)


def _find_unknown(rows: Mapping[str, Sequence[str]], label_names: Sequence[str]) -> list[Problem]:
    """Return a problem for each unknown label, with the nearest known one; a single problem if there are many."""
    known = list(label_names)
    if len(rows) > _MOST_UNKNOWN:
        return [
            Problem(
                "Labels", "must be classes of the model", join_quoted(rows), f"Known: {join_quoted(known)}."
            )
        ]
    rule = "must be a class of the model"
    return [
        Problem(f"Label {label!r} in {join_quoted(examples)}", rule, "", suggestion(label, known))
        for label, examples in rows.items()
    ]


def _infer_target(
    present: Sequence[Any],
    requested: TargetName | Literal["auto"],
    place: str = "data.target",
    repair: str = "Remove it, or set it to auto.",
) -> tuple[Kind, LabelSummary, list[Problem]]:
    """Return the label type, requested or inferred; the types of the labels; and problems if they do not fit."""
    labels = summarize_labels(present)
    kind = requested_target(requested) or next(
        (kind for kind in TARGETS.values() if kind.recognizes(labels)), TARGETS[ASSUMED_TARGET]
    )
    lists = sum(isinstance(value, list) for value in present)
    if 0 < lists < len(present):
        rule = "must contain a list in every row, or in no row"
        return kind, labels, [Problem(LABEL_LOCATION, rule, f"lists in {lists} of {len(present)} rows")]
    unsupported = {
        type(item).__name__ for item in labels.items if not isinstance(item, str | bool | int | float)
    }
    if unsupported:
        rule = "must contain texts, numbers or lists of them"
        return kind, labels, [Problem(LABEL_LOCATION, rule, ", ".join(sorted(unsupported)))]
    if incompatibility := kind.incompatibility(labels):
        rule = f"must fit the labels, which are {incompatibility}"
        return kind, labels, [Problem(place, rule, repr(kind.name), repair)]
    return kind, labels, []


def _find_missing(values: Mapping[str, Sequence[Any]], ids: Mapping[str, Sequence[str]]) -> list[Problem]:
    rows = rows_where(values, ids, lambda v: v is None or (isinstance(v, list) and None in v))
    repair = "Label these rows or remove them."
    rule = "must contain a label in every row"
    return [Problem(LABEL_LOCATION, rule, f"missing labels in {join_quoted(rows)}", repair)] if rows else []


def _note_unused(names: Sequence[str], encoded: Mapping[str, Sequence[Any]]) -> tuple[str, ...]:
    used = {index for labels in encoded.values() for index in flat_labels(labels)}
    unused = [name for index, name in enumerate(names) if index not in used]
    return (
        (f"Classes that the data declares but that have no examples: {join_quoted(unused)}.",)
        if unused
        else ()
    )
