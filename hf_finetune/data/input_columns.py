"""Selection of the input columns of a table: named by the user, known from training, or inferred from their names."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from hf_finetune.data.label_form import parse_label_form
from hf_finetune.errors import InputError, Problem, join_quoted, suggestion
from hf_finetune.tasks import MODALITIES, Modality

__all__ = [
    "INPUT_KEYS",
    "LABELED_KEYS",
    "choose_columns",
    "find_id_column",
    "label_columns",
    "parse_columns",
    "takes_pairs",
]

INPUT_KEYS = tuple(
    dict.fromkeys(
        [
            *(role for modality in MODALITIES.values() for role in modality.columns),
            *(role.name for modality in MODALITIES.values() for role in modality.row_roles),
            "time",
            "id",
        ]
    )
)
"""Keys of ``--column KEY=NAME``."""
LABELED_KEYS = (*(role for modality in MODALITIES.values() for role in modality.columns), "label")
"""Keys of ``--column KEY=NAME`` for labeled data."""

TrainingColumns = Mapping[str, Any]
"""Columns used in training, by role: those of the modality, and label."""

_IDS = ("id", "idx")


def parse_columns(given: Sequence[str], keys: Collection[str] = INPUT_KEYS) -> dict[str, str]:
    """Parse columns in the form ``KEY=NAME``.

    Args:
        given: Values of ``--column``.
        keys: Valid keys.

    Returns:
        Column name by key.

    Raises:
        InputError: If a value is not of the form ``KEY=NAME``, or if a key is unknown or repeated.
    """
    columns: dict[str, str] = {}
    problems = []
    for value in given:
        key, equals, name = value.partition("=")
        if not equals or not key.strip() or not name.strip():
            rule = "must be KEY=NAME"
            problems.append(Problem("--column", rule, repr(value), "For example text=question."))
        elif key.strip() not in keys:
            rule = f"must set one of {', '.join(keys)}"
            problems.append(Problem("--column", rule, repr(key), suggestion(key, tuple(keys))))
        elif key.strip() in columns:
            problems.append(Problem("--column", f"must set {key.strip()} only once", repr(value)))
        else:
            columns[key.strip()] = name.strip()
    if problems:
        raise InputError(problems)
    return columns


def _input_roles(modality: Modality) -> set[str]:
    """Return the roles of the columns of an example, and of those of rows that are joined to one."""
    rows = [role.name for role in modality.row_roles]
    return {*modality.columns, *rows, *(["time"] if rows else [])}


def takes_pairs(training_columns: TrainingColumns | None) -> bool | None:
    """Return whether a model was trained on pairs, with an optional column; None if unknown or if there is none."""
    for modality in MODALITIES.values():
        if modality.main_column in (training_columns or {}) and len(modality.columns) > 1:
            return (training_columns or {}).get(modality.columns[1]) is not None
    return None


def label_columns(training_columns: TrainingColumns | None) -> tuple[str, ...]:
    """Return the label columns used in training."""
    return parse_label_form((training_columns or {}).get("label")).columns


def choose_columns(
    place: str,
    present: Sequence[str],
    modality: Modality,
    named: Mapping[str, str],
    training_columns: TrainingColumns | None = None,
) -> tuple[dict[str, str], list[str]]:
    """Choose the input columns of a table.

    Args:
        place: Name of the table in the messages.
        present: Columns of the table.
        modality: Kind of input of the model.
        named: Columns that the user named, by role: those of the modality, and id.
        training_columns: Columns used in training; None if they are unknown.

    Returns:
        Column names by role, without an optional one that is not used, and notes on the choice.

    Raises:
        InputError: If a named column is missing, or if there is no candidate or several.
    """
    other_roles = {role for other in MODALITIES.values() for role in _input_roles(other)} - _input_roles(
        modality
    )
    problems = [
        Problem(f"--column {key}", f"must not be set for a model of {modality.plural}", name)
        for key, name in named.items()
        if key in other_roles
    ]
    problems += [
        Problem(
            place, f"must have the column {name!r}, which is set for {key}", "", suggestion(name, present)
        )
        for key, name in named.items()
        if key not in other_roles and name not in present
    ]
    if problems:
        raise InputError(problems)
    known = dict(training_columns or {})
    candidates = [name for name in present if name not in (*label_columns(training_columns), *named.values())]
    pairs = takes_pairs(training_columns)
    if pairs:
        return _choose_pair(place, present, modality, named, known)
    used, notes = _choose_main_column(place, present, modality, named, known, candidates)
    if len(modality.columns) < 2:
        return used, notes
    main, optional = modality.columns
    if pairs is None:
        if optional in named:
            used[optional] = named[optional]
        elif used[main] == main and optional in present:
            used[optional] = optional
        return used, notes
    second = named.get(optional) or next(
        (name for name in (optional, *modality.second_column_names(used[main])) if name in candidates), None
    )
    if second is not None and second != used[main]:
        reason = f"because the model was trained on single {modality.plural}"
        notes.append(f"{place}: the column {second!r} is not read, {reason}.")
    return used, notes


def _choose_main_column(
    place: str,
    present: Sequence[str],
    modality: Modality,
    named: Mapping[str, str],
    known: TrainingColumns,
    candidates: Sequence[str],
) -> tuple[dict[str, str], list[str]]:
    """Choose the main column."""
    key = modality.main_column
    if key in named:
        return {key: named[key]}, []
    trained = known.get(key)
    if trained in present:
        return {key: str(trained)}, []
    likely = [name for name in candidates if name.lower() in modality.roles[0].usual_names]
    # Where the trained text column is missing, another one is not inferred by name if there are several candidates.
    guess = likely[0] if len(likely) == 1 and (trained is None or modality.opens_files) else None
    inputs = [name for name in candidates if name != find_id_column(candidates, ())]
    chosen = key if key in candidates else guess or (inputs[0] if len(inputs) == 1 else None)
    if chosen is None and len(candidates) == 1:
        chosen = candidates[0]
    if chosen is not None:
        note = f"{place}: the column {trained!r} of the training data is missing; {chosen!r} is read instead."
        return {key: chosen}, [] if trained is None else [note]
    rule = f"must have exactly one possible {key} column"
    repair = f"Rename the column with the {key}s to {key!r}, or set --column {key}=NAME."
    if trained is not None:
        rule = f"must have the column {trained!r}, which the model was trained on"
        close = suggestion(str(trained), candidates)
        hint = f"{close} " if close.startswith("Nearest") else ""
        repair = f"{hint}Rename the column with the {key}s, or set --column {key}=NAME."
    raise InputError(Problem(place, rule, f"columns {join_quoted(present)}", repair))


def _choose_pair(
    place: str, present: Sequence[str], modality: Modality, named: Mapping[str, str], known: TrainingColumns
) -> tuple[dict[str, str], list[str]]:
    """Choose both columns of a pair: named by the user, as in training, or with the default names."""
    used = {}
    for key in modality.columns:
        options = (named.get(key), known[key], key)
        used[key] = next((name for name in options if name is not None and name in present), None)
    wanted = [repr(known[key]) for key in modality.columns]
    chosen = {key: name for key, name in used.items() if name is not None}
    if len(set(chosen.values())) < len(used):
        rule = f"must have the columns {' and '.join(wanted)}, as the model was trained on pairs of {modality.plural}"
        names = " ".join(f"--column {key}=NAME" for key in modality.columns)
        repair = f"Rename two columns, or set {names}."
        raise InputError(Problem(place, rule, f"columns {join_quoted(present)}", repair))
    notes = [
        f"{place}: the column {known[key]!r} of the training data is missing; {name!r} is read instead."
        for key, name in chosen.items()
        if key not in named and name != known[key]
    ]
    return chosen, notes


def find_id_column(present: Sequence[str], used: Collection[str]) -> str | None:
    """Return the column of example ids: ``id``, else the first ID, Id, idx; None if there is none."""
    likely = [name for name in present if name.lower() in _IDS and name not in used]
    return "id" if "id" in likely else likely[0] if likely else None
