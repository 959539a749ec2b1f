"""Encoding of labels for training: class indices, lists of class indices, or continuous targets."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from hf_finetune.errors import Problem, nearest, quoted
from hf_finetune.targets import TARGETS, MultiLabel, Regression, SingleLabel
from hf_finetune.targets.labels import Target, class_order, label_text

__all__ = ["Targets", "encode_known", "find_unknown_classes", "resolve_targets"]

_MOST_WHOLE_CLASSES = 50
_IGNORED_BY_TRAINER = -100
_MOST_UNKNOWN = 10


@dataclass(frozen=True)
class Targets:
    """Encoded labels of every split.

    Attributes:
        target: Kind of label: single-label, multi-label or regression.
        label_names: Class names in index order. ``("label",)`` for regression.
        labels: For each split, a class index, a sorted list of class indices, or a float per example.
        notes: Messages to the user on how labels were interpreted.
    """

    target: Target
    label_names: tuple[str, ...]
    labels: Mapping[str, list[Any]]
    notes: tuple[str, ...]


def resolve_targets(
    values: Mapping[str, Sequence[Any]],
    ids: Mapping[str, Sequence[str]],
    declared: Sequence[str] | None,
    requested: Target | Literal["auto"],
) -> tuple[Targets | None, list[Problem]]:
    """Determine the kind of label, and encode the labels.

    Args:
        values: Labels of each split, as returned by ``read_labels``.
        ids: Name of each example, for the messages.
        declared: Class names in index order, if the data declares them.
        requested: Kind of label, or ``auto`` to infer it.

    Returns:
        The targets and no problems, or None and all problems.
    """
    problems = _find_missing(values, ids)
    present = [value for split in values for value in values[split] if value is not None]
    target, decided, type_problems = _decide(present, requested)
    problems += type_problems
    if not type_problems and TARGETS[target].has_several_classes:
        problems += _find_bad_lists(values, ids)
    if not type_problems and not TARGETS[target].has_classes:
        problems += _find_bad_amounts(values, ids)
    if problems:
        return None, problems
    if not TARGETS[target].has_classes:
        numbers = {split: [float(value) for value in values[split]] for split in values}
        return Targets(Regression.name, ("label",), numbers, decided), []
    names = _order_names(_flat(present), declared)
    indices = {name: index for index, name in enumerate(names)}
    encoded = {split: [_encode(value, indices) for value in values[split]] for split in values}
    return Targets(target, names, encoded, (*decided, *_note_unused(names, encoded))), []


def encode_known(
    split: str, values: Sequence[Any], ids: Sequence[str], target: Target, label_names: Sequence[str]
) -> tuple[list[Any], list[Problem]]:
    """Encode the labels of one split for a model with known classes.

    Args:
        split: Name of the split, for the messages.
        values: Labels, as returned by ``read_labels``.
        ids: Name of each example, for the messages.
        target: Kind of label of the model.
        label_names: Class names of the model in index order.

    Returns:
        Encoded labels and no problems, or an empty list and all problems.
    """
    problems = _find_missing({split: values}, {split: ids})
    present = [value for value in values if value is not None]
    _, _, type_problems = _decide(present, target, place="The model's target", repair="")
    problems += type_problems
    if not type_problems and TARGETS[target].has_several_classes:
        problems += _find_bad_lists({split: values}, {split: ids})
    if not type_problems and not TARGETS[target].has_classes:
        problems += _find_bad_amounts({split: values}, {split: ids})
        return ([] if problems else [float(value) for value in values]), problems
    indices = {name: index for index, name in enumerate(label_names)}
    if not type_problems:
        rows: dict[str, list[str]] = {}
        for value, row in zip(values, ids, strict=True):
            for label in _flat([value]):
                if label is not None and label_text(label) not in indices:
                    rows.setdefault(label_text(label), []).append(row)
        problems += _find_unknown(rows, label_names)
    return ([] if problems else [_encode(value, indices) for value in values]), problems


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
        return [Problem("Labels", "must be ones the model knows", quoted(rows), f"Known: {quoted(known)}.")]
    return [
        Problem(
            f"Label {label!r}",
            "must be one the model knows",
            f"it for {quoted(examples)}",
            nearest(label, known),
        )
        for label, examples in rows.items()
    ]


def _decide(
    present: Sequence[Any],
    requested: Target | Literal["auto"],
    place: str = "data.target",
    repair: str = "Leave it at 'auto'.",
) -> tuple[Target, tuple[str, ...], list[Problem]]:
    """Infer the kind of label from the types of the labels, or check that they fit the requested kind.

    Returns:
        The target, notes, and problems.
    """
    lists = [value for value in present if isinstance(value, list)]
    if lists and len(lists) < len(present):
        rule = "must hold a list in every row or in none"
        return MultiLabel.name, (), [Problem("The label column", rule, f"{len(lists)} of {len(present)}")]
    items = [item for item in _flat(present) if item is not None]
    strange = {type(item).__name__ for item in items if not isinstance(item, str | bool | int | float)}
    if strange:
        rule = "must hold texts, numbers or lists of them"
        return SingleLabel.name, (), [Problem("The label column", rule, ", ".join(sorted(strange)))]
    fractions = any(isinstance(item, float) and not item.is_integer() for item in items)
    numbers = all(isinstance(item, int | float) and not isinstance(item, bool) for item in items)
    if lists:
        natural: Target = MultiLabel.name
    elif numbers and any(isinstance(item, float) for item in items) and (fractions or _many(items)):
        natural = Regression.name
    else:
        natural = SingleLabel.name
    target = natural if requested == "auto" else requested
    unsuited = _find_unsuited(target, bool(lists), numbers, fractions)
    if unsuited:
        rule = f"must suit the labels, which are {unsuited}"
        return target, (), [Problem(place, rule, repr(target), repair)]
    return target, _notes(target, items, requested == "auto"), []


def _find_unsuited(target: Target, lists: bool, numbers: bool, fractions: bool) -> str | None:
    """Return a description of the labels if they do not fit the target, else None."""
    if not TARGETS[target].has_classes and (lists or not numbers):
        return "lists" if lists else "no numbers"
    if TARGETS[target].has_several_classes and (not lists or (numbers and fractions)):
        return "no lists of classes"
    if TARGETS[target].is_exclusive and lists:
        return "lists"
    return None


def _many(items: Sequence[Any]) -> bool:
    return len({float(item) for item in items}) > _MOST_WHOLE_CLASSES


def _notes(target: Target, items: Sequence[Any], inferred: bool) -> tuple[str, ...]:
    distinct = sorted({label_text(item) for item in items}, key=class_order)
    if not TARGETS[target].has_classes:
        return ("The labels are numbers with fractions or of many values: a regression.",) if inferred else ()
    if all(isinstance(item, str) for item in items):
        return ()
    shown = quoted(distinct, most=5)
    hint = " If they are amounts, set data.target: regression."
    if TARGETS[target].has_several_classes or any(isinstance(item, bool) for item in items):
        hint = ""
    return (f"The labels are no texts; they are read as the class names {shown}.{hint}",)


def _find_missing(values: Mapping[str, Sequence[Any]], ids: Mapping[str, Sequence[str]]) -> list[Problem]:
    rows = _rows_where(values, ids, lambda v: v is None or (isinstance(v, list) and None in v))
    repair = "Label these rows or remove them."
    rule = "must hold a label in every row"
    return [Problem("The label column", rule, f"none for {quoted(rows)}", repair)] if rows else []


def _find_bad_lists(values: Mapping[str, Sequence[Any]], ids: Mapping[str, Sequence[str]]) -> list[Problem]:
    rows = _rows_where(values, ids, lambda v: isinstance(v, list) and len(set(map(label_text, v))) < len(v))
    rule = "must name each class of a row once"
    repair = "Name each class once. Lists of zeros and ones, with a place for each class, must all be of one length."
    return [Problem("The label column", rule, f"repeated ones for {quoted(rows)}", repair)] if rows else []


def _find_bad_amounts(values: Mapping[str, Sequence[Any]], ids: Mapping[str, Sequence[str]]) -> list[Problem]:
    infinite = _rows_where(values, ids, lambda v: v is not None and math.isinf(v))
    ignored = _rows_where(values, ids, lambda v: v == _IGNORED_BY_TRAINER)
    problems = []
    if infinite:
        problems.append(Problem("The label column", "must hold finite numbers", quoted(infinite)))
    if ignored:
        repair = "Shift or scale the labels: the Trainer takes -100 for 'ignore this example'."
        problems.append(
            Problem("The label column", "must not hold exactly -100", f"it for {quoted(ignored)}", repair)
        )
    return problems


def _rows_where(
    values: Mapping[str, Sequence[Any]], ids: Mapping[str, Sequence[str]], condition: Callable[[Any], bool]
) -> list[str]:
    return [
        row
        for split in values
        for value, row in zip(values[split], ids[split], strict=True)
        if condition(value)
    ]


def _order_names(items: Iterable[Any], declared: Sequence[str] | None) -> tuple[str, ...]:
    names = {label_text(item) for item in items}
    known = tuple(declared or ())
    return (*known, *sorted(names - set(known), key=class_order))


def _note_unused(names: Sequence[str], encoded: Mapping[str, Sequence[Any]]) -> tuple[str, ...]:
    used = {index for labels in encoded.values() for index in _flat(labels)}
    unused = [name for index, name in enumerate(names) if index not in used]
    return (f"Classes that the data declares but has no example of: {quoted(unused)}.",) if unused else ()


def _encode(value: Any, indices: Mapping[str, int]) -> int | list[int]:
    if isinstance(value, list):
        return sorted(indices[label_text(item)] for item in value)
    return indices[label_text(value)]


def _flat(values: Iterable[Any]) -> list[Any]:
    return [item for value in values for item in (value if isinstance(value, list) else [value])]
