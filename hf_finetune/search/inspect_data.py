"""Inspection of data without a recipe: its task, columns, splits and label type."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from datasets import Dataset

from hf_finetune.data.load import load_source
from hf_finetune.data.prepare import LabeledData
from hf_finetune.data.recipe_data import load_data
from hf_finetune.data.table_files import read_once
from hf_finetune.data.table_options import TableOptions, table_format
from hf_finetune.errors import DataNotFoundError, InputError, Problem, short_repr
from hf_finetune.recipe.load import parse_recipe
from hf_finetune.recipe.modality_fields import DataFields
from hf_finetune.search.guess_columns import guess_columns
from hf_finetune.tasks import MODALITIES, TASKS, Modality, Task
from hf_finetune.tasks.columns import NOT_FOUND
from hf_finetune.tasks.stored_data import StoredData

__all__ = ["InspectedData", "inspect_data"]

_NEW_SPLIT = 0.15
"""Fraction of the training examples for a validation or test split that the data does not have."""
_ROWS_READ = 1000
"""Number of rows that are looked at to tell what a column contains."""


@dataclass(frozen=True)
class InspectedData:
    """Data that can be used for fine-tuning, and how.

    Attributes:
        path: Folder, file or Hub id, as the user gave it.
        task: The task.
        fields: Fields of ``data`` in a recipe, besides ``path``, with which the data loads.
        data: The loaded data.
        other_columns: Columns of a table that are not used, not even to assign rows to splits.
        given_splits: Names of the splits that the data has.
        guessed: Roles whose columns were guessed from their content.
        is_random: Whether new splits are random because a class has too few examples to stratify them.
        removed: The first problem for which unusable examples are skipped; empty if none is, or if the user set
            ``on_error``.
    """

    path: str
    task: Task
    fields: Mapping[str, Any]
    data: LabeledData
    other_columns: tuple[str, ...]
    given_splits: tuple[str, ...]
    guessed: tuple[str, ...]
    is_random: bool
    removed: str

    @property
    def splits(self) -> Mapping[str, Dataset]:
        """Dataset of each split, given or created."""
        named = {"train": self.data.train, "validation": self.data.validation, "test": self.data.test}
        return {name: dataset for name, dataset in named.items() if dataset is not None}


def inspect_data(
    path: str,
    named: Mapping[str, str] | None = None,
    tasks: Iterable[str] | None = None,
    fields: Mapping[str, Any] | None = None,
) -> InspectedData:
    """Find the task and the fields of a recipe with which data can be used.

    Each task is tried in the order of registration, or only those whose modality claims the table; the data must load
    with all checks of a run. Columns whose names do not tell their role are guessed, and unusable examples are skipped.

    Args:
        path: A folder, a file of a table, or a Hub id.
        named: Columns that the user named, by role.
        tasks: Names of the tasks to try; None is all of them.
        fields: Fields of ``data`` that the user set, such as ``separator``.

    Returns:
        The data, for the first task that can use it.

    Raises:
        InputError: If no task can use the data; with the reasons of each task whose columns were found, if any.
    """
    with read_once():
        return _first_usable(path, dict(named or {}), tasks, dict(fields or {}))


def _first_usable(
    path: str, named: dict[str, str], tasks: Iterable[str] | None, fields: dict[str, Any]
) -> InspectedData:
    """Return the data for the first task that can use it; see ``inspect_data``."""
    problems: dict[str, tuple[Problem, ...]] = {}
    ordered = [TASKS[name] for name in (tasks or TASKS)]
    if tasks is None and not named:
        ordered = [task for task in ordered if _is_claimed(path, task, fields)] or ordered
    for task in ordered:
        try:
            return _inspect(path, named, task, dict(fields))
        except DataNotFoundError:
            raise
        except InputError as error:
            problems[task.name] = tuple(error.problems)
    raise InputError(_of_fitting_tasks(problems))


def _of_fitting_tasks(problems: Mapping[str, Sequence[Problem]]) -> list[Problem]:
    """Return the problems of the tasks whose columns were found; of all tasks if there are no such tasks.

    Args:
        problems: Problems of each task.
    """
    fitting = {
        name: found
        for name, found in problems.items()
        if not any(problem.rule.startswith(NOT_FOUND) for problem in found)
    }
    shown = fitting or problems
    return list(dict.fromkeys(_for_task(problem, TASKS[name]) for name in shown for problem in shown[name]))


def _is_claimed(path: str, task: Task, given: dict[str, Any]) -> bool:
    """Return whether a table is clearly one of the modality of a task, which is then tried first."""
    if type(task.modality).claims is StoredData.claims or table_format(Path(path)) is None:
        return False
    try:
        spec = _minimal_recipe(path, task, given).data
        source = load_source(path, modality=task.modality, options=_options(spec))
    except InputError:
        return False
    return set(source.splits) == {"train"} and task.modality.claims(source.splits["train"])


def _options(spec: DataFields) -> TableOptions:
    return TableOptions(spec.encoding, spec.separator, spec.decimal)


def _for_task(problem: Problem, task: Task) -> Problem:
    return Problem(f"For {task.name}: {problem.place}", problem.rule, problem.value, problem.repair)


def _inspect(path: str, named: Mapping[str, str], task: Task, given: dict[str, Any]) -> InspectedData:
    spec = _minimal_recipe(path, task, given).data
    named = {**given.pop("columns", {}), **named}
    source = load_source(
        path,
        modality=task.modality,
        config=spec.config,
        revision=spec.revision,
        columns=named,
        nested=spec.nested,
        options=_options(spec),
    )
    if "train" not in source.splits:
        raise InputError(Problem("The data", "must have a train split", ", ".join(source.splits)))
    train = source.splits["train"]
    joins = task.modality.has_rows(train.column_names, named)
    row_guesses = {} if joins or named else dict(task.modality.guess_rows(train))
    joins = joins or bool(row_guesses)
    guesses = row_guesses.pop("columns", {}) if joins else guess_columns(train, task.modality, named)
    if guesses and source.header_problems:
        raise InputError(source.header_problems)
    columns = {**named, **guesses}
    divides = joins and task.modality.divides_rows
    new = {
        split: _NEW_SPLIT for split in ("validation", "test") if split not in source.splits and not divides
    }
    fields: dict[str, Any] = {**given, **({"columns": columns} if columns else {})}
    if new or "split" in given:
        fields["split"] = {**new, "stratify": True, **given.get("split", {})}
    fields = {**row_guesses, **fields} if "split" in given else {**fields, **row_guesses}
    fields, data, removed = _load(path, task, fields)
    if task.modality.main_column not in named:
        if task.modality.row_roles and not joins:
            _check_examples(train, data, task.modality)
        _check_texts(data, task.modality)
    used = {source.split_column, spec.split.group, *_names_in(columns), *_names_in(data.columns)}
    return InspectedData(
        path=path,
        task=task,
        fields=fields,
        data=data,
        other_columns=tuple(name for name in train.column_names if name not in used),
        given_splits=tuple(source.splits),
        guessed=tuple(guesses),
        is_random=fields.get("split", {}).get("stratify") is False
        and "stratify" not in given.get("split", {}),
        removed=removed,
    )


def _names_in(value: Any) -> set[str]:
    """Return all texts in a value of nested mappings and lists, among them the names of columns."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple):
        return {name for item in value for name in _names_in(item)}
    return {value} if isinstance(value, str) else set()


def _load(path: str, task: Task, fields: Mapping[str, Any]) -> tuple[dict[str, Any], LabeledData, str]:
    """Load the data with stratified splits, else with random ones; in both cases, skip examples only if necessary."""
    attempts = [dict(fields)]
    if fields.get("split", {}).get("stratify"):
        attempts.append({**fields, "split": {**fields["split"], "stratify": False}})
    errors: list[InputError] = []
    for tried in attempts:
        removed = ""
        for skipping in ({}, {"on_error": "skip"}) if "on_error" not in fields else ({},):
            try:
                data = load_data(_minimal_recipe(path, task, {**tried, **skipping}))
            except InputError as error:
                errors.append(error)
                first = error.problems[0]
                removed = str(replace(first, repair=""))
            else:
                return {**tried, **skipping}, data, removed
    raise errors[0]


def _check_examples(train: Dataset, data: LabeledData, modality: Modality) -> None:
    """Check that a column without a usual name, which was taken as the only one of its type, contains examples.

    Raises:
        InputError: If it does not.
    """
    role = modality.roles[0]
    column = data.columns.get(role.name)
    if not isinstance(column, str) or column not in train.column_names or column.lower() in role.usual_names:
        return
    cells = train.select(range(min(len(train), _ROWS_READ)))[column][:]
    if not modality.may_hold_examples(cells):
        rule, repair = (
            "must contain lists if its name does not tell its role",
            "Name the column with --column.",
        )
        raise InputError(Problem(f"data.columns.{role.name}", rule, short_repr(cells[0]), repair))


def _check_texts(data: LabeledData, modality: Modality) -> None:
    """Check that the main column does not contain names of files, such as pictures that are missing.

    Raises:
        InputError: If all texts are such names.
    """
    suffixes = tuple(
        suffix for other in MODALITIES.values() if other.opens_files for suffix in other.suffixes
    )
    cells = data.train[modality.main_column][:] if not modality.opens_files else []
    texts = [cell for cell in cells if isinstance(cell, str)]
    if texts and all(text.lower().endswith(suffixes) for text in texts):
        place, repair = f"data.columns.{modality.main_column}", "Name the column with --column."
        raise InputError(Problem(place, "must not contain only names of files", repr(texts[0]), repair))


def _minimal_recipe(path: str, task: Task, fields: Mapping[str, Any]) -> Any:
    """Return a recipe with the data; its model is not read."""
    content = {"task": task.name, "model": "unread", "data": {"path": path, **fields}}
    return parse_recipe({**content, "stages": [{"train": "head", "epochs": 1, "lr": 0.1}]})
