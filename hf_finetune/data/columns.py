"""Selection of the input, label and group columns: named by the user, or inferred from type and name."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from datasets import ClassLabel, Features, Value

from hf_finetune.data.label_form import LabelForm, parse_label_form
from hf_finetune.errors import InputError, Problem, suggestion
from hf_finetune.tasks import MODALITIES, Modality
from hf_finetune.tasks.columns import choose_only_candidate

__all__ = ["LABEL_NAMES", "Columns", "find_columns", "find_inputs", "resolved_columns"]

LABEL_NAMES = ("label", "labels", "target", "targets", "class", "category", "sentiment", "score", "rating")
"""Usual names of a label column, in lower case."""
_SPLIT_ROLE = "split"
"""Key of ``named`` with the column that assigns rows to splits, which is applied when the data is loaded."""


@dataclass(frozen=True)
class Columns:
    """Names of the columns that are used, by role.

    Attributes:
        label: Label column; the first of ``labels`` where each class has its own column; empty if labels are not read.
        labels: Label columns where each class has its own column; else empty.
        weight: Column of example weights.
        inputs: Column of each role of the modality; None for an optional role without a column.
        group: Group column.
        groups_recur: Whether a group may be in several splits.
        slices: Columns for evaluation by slice.
        text_slices: Columns among ``slices`` that contain texts in at least one split.
    """

    label: str
    labels: tuple[str, ...] = ()
    weight: str | None = None
    inputs: Mapping[str, str | None] = field(default_factory=dict)
    group: str | None = None
    groups_recur: bool = False
    slices: tuple[str, ...] = ()
    text_slices: frozenset[str] = frozenset()

    def input_columns(self) -> tuple[str, ...]:
        """Return the names of the input columns."""
        return tuple(name for name in self.inputs.values() if name is not None)


def find_columns(
    features: Features, modality: Modality, named: Mapping[str, Any], group: str | None = None
) -> tuple[Columns, tuple[str, ...]]:
    """Find the columns to use.

    A column with the default name (that of its role, or ``label``) is preferred to all other candidates.

    Args:
        features: Columns of the data and their types.
        modality: Kind of input.
        named: Column names by role: those of the modality, label, weight, group. None means that the column is
            inferred. The label may also be a list of names, or the fields of ``data.columns.label``.
        group: Group column of the splits. The same as ``named["group"]``; either may be set.

    Returns:
        The columns, and a note on those that were inferred (empty if there are none).

    Raises:
        InputError: If a named column is missing or of the wrong type, or if there is no candidate or several.
    """
    label_form = parse_label_form(named.get("label"))
    excluded_roles = ("label", _SPLIT_ROLE)
    named_columns = {
        key: name for key, name in named.items() if name is not None and key not in excluded_roles
    }
    problems = _check_named(features, modality, named_columns, group, label_form.columns)
    if problems:
        raise InputError(problems)
    group = group or named_columns.get("group")
    usual_names = modality.label_columns or LABEL_NAMES
    label, label_problems = _find_label(
        features, label_form, usual_names, taken=(group, *named_columns.values())
    )
    taken = (label, *label_form.columns, group, named_columns.get("weight"), named_columns.get("time"))
    inputs, input_problems = modality.find_columns(features, named_columns, taken)
    if modality.group_role and not input_problems:
        input_problems = _other_group(modality, inputs, group)
        group = inputs[modality.group_role]
    if label is None or input_problems:
        raise InputError([*input_problems, *label_problems])
    labels = label_form.columns if label_form.one_column_per_class else ()
    weight = named_columns.get("weight")
    columns = Columns(label=label, labels=labels, weight=weight, group=group, inputs=inputs)
    inferred = [
        f"{key} from {name!r}"
        for key, name in (*inputs.items(), ("label", label))
        if name and key not in named_columns and name not in label_form.columns
    ]
    return columns, (f"Columns inferred: {', '.join(inferred)}.",) if inferred else ()


def find_inputs(features: Features, modality: Modality, named: Mapping[str, Any]) -> Columns:
    """Find the input columns of data whose labels, if any, are not read.

    Args:
        features: Columns of the data and their types.
        modality: Kind of input.
        named: As for ``find_columns``; the columns of label, weight and group are only excluded from the candidates.

    Returns:
        The input columns; ``label`` is empty.

    Raises:
        InputError: If a named column is missing or of the wrong type, or if there is no candidate or several.
    """
    roles = [role for known in MODALITIES.values() for role in known.columns]
    named_columns = {key: name for key, name in named.items() if name is not None and key in roles}
    if problems := _check_named(features, modality, named_columns, None):
        raise InputError(problems)
    taken = (*parse_label_form(named.get("label")).columns, named.get("group"), named.get("weight"))
    inputs, problems = modality.find_columns(features, named_columns, taken)
    if problems:
        raise InputError(problems)
    return Columns(label="", inputs=inputs)


def resolved_columns(named: Mapping[str, Any], used: Columns) -> dict[str, Any]:
    """Return the input and label columns as fields of a recipe, with inferred columns filled in.

    Args:
        named: As for ``find_columns``.
        used: Columns returned by ``find_columns``.

    Returns:
        Column of each input role (None for an optional role without a column), and ``label``: JSON values.
    """
    label = named.get("label")
    return {**used.inputs, "label": used.label if label is None else _plain(label)}


def _plain(label: Any) -> Any:
    """Return a label field with JSON types only: lists instead of tuples, and no null entries."""
    if isinstance(label, Mapping):
        return {key: _plain(value) for key, value in label.items() if value is not None}
    return list(label) if isinstance(label, tuple | list) else label


def _check_named(
    features: Features,
    modality: Modality,
    given: Mapping[str, str],
    group: str | None,
    labels: Sequence[str] = (),
) -> list[Problem]:
    problems = []
    roles = {role.name: role for role in modality.roles}
    other_roles = {name for other in MODALITIES.values() for name in other.columns} - roles.keys()
    for key, name in given.items():
        place = f"data.columns.{key}"
        if key in other_roles:
            problems.append(Problem(place, f"must not be set for {modality.name} data", repr(name)))
        elif name not in features:
            problems.append(_no_such_column(place, name, features))
        elif key in roles and not roles[key].accepts(features[name]):
            problems.append(Problem(place, roles[key].rule, _typed(name, features)))
    for key in roles.keys() & given.keys() - {modality.main_column}:
        if modality.main_column not in given:
            rule = f"must be set if {key} is set"
            problems.append(Problem(f"data.columns.{modality.main_column}", rule, f"{key} {given[key]!r}"))
    problems += [
        _no_such_column("data.columns.label", name, features) for name in labels if name not in features
    ]
    if group is not None and group not in features:
        problems.append(_no_such_column("data.split.group", group, features))
    elif group is not None and given.get("group", group) != group:
        value = f"{group!r} and {given['group']!r}"
        problems.append(Problem("data.split.group", "must be the same column as data.columns.group", value))
    return problems


def _other_group(modality: Modality, inputs: Mapping[str, str | None], group: str | None) -> list[Problem]:
    """Return a problem if the user groups the examples by another column than that of the modality."""
    column = inputs[modality.group_role]
    if group in (None, column):
        return []
    rule = f"must be the column of data.columns.{modality.group_role}, {column!r}, or null"
    return [Problem("data.split.group", rule, repr(group))]


def _find_label(
    features: Features, label_form: LabelForm, usual_names: Sequence[str], taken: Sequence[str | None]
) -> tuple[str | None, list[Problem]]:
    if label_form.columns:
        return label_form.columns[0], []
    candidates = [name for name in features if name.lower() in usual_names and name not in taken]
    if not candidates:
        candidates = [n for n in features if isinstance(features[n], ClassLabel) and n not in taken]
    return choose_only_candidate("label", "labels", candidates, features)


def _no_such_column(place: str, name: str, features: Features) -> Problem:
    return Problem(place, "must be a column of the data", repr(name), suggestion(name, list(features)))


def _typed(name: str, features: Features) -> str:
    feature = features[name]
    return f"{name!r} of type {feature.dtype if isinstance(feature, Value) else type(feature).__name__}"
