"""Inspection of data without a recipe: its task, columns, splits and label type."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from datasets import Dataset

from hf_finetune.data.load import load_source
from hf_finetune.data.prepare import LabeledData
from hf_finetune.data.recipe_data import load_data
from hf_finetune.errors import DataNotFoundError, InputError, Problem
from hf_finetune.recipe import parse_recipe
from hf_finetune.search.guess_columns import guess_columns
from hf_finetune.tasks import TASKS, Task

__all__ = ["InspectedData", "inspect_data"]

_NEW_SPLIT = 0.15
"""Fraction of the training examples for a validation or test split that the data does not have."""


@dataclass(frozen=True)
class InspectedData:
    """Data that can be used for fine-tuning, and how.

    Attributes:
        path: Folder, file or Hub id, as the user gave it.
        task: The task.
        fields: Fields of ``data`` in a recipe, besides ``path``, with which the data loads.
        data: The loaded data.
        other_columns: Columns of a table that are not used.
        given_splits: Names of the splits that the data has.
        guessed: Roles whose columns were guessed from their content.
        removed: Reason why unusable examples are skipped; empty if all examples are used.
    """

    path: str
    task: Task
    fields: Mapping[str, Any]
    data: LabeledData
    other_columns: tuple[str, ...]
    given_splits: tuple[str, ...]
    guessed: tuple[str, ...]
    removed: str

    @property
    def splits(self) -> Mapping[str, Dataset]:
        """Dataset of each split, given or created."""
        named = {"train": self.data.train, "validation": self.data.validation, "test": self.data.test}
        return {name: dataset for name, dataset in named.items() if dataset is not None}


def inspect_data(
    path: str, named: Mapping[str, str] | None = None, tasks: Iterable[str] | None = None
) -> InspectedData:
    """Find the task and the fields of a recipe with which data can be used.

    Each task is tried in the order of registration; the data must load with all checks of a run. Columns whose names
    do not tell their role are guessed, and unusable examples are skipped.

    Args:
        path: A folder, a file of a table, or a Hub id.
        named: Columns that the user named, by role.
        tasks: Names of the tasks to try; None is all of them.

    Returns:
        The data, for the first task that can use it.

    Raises:
        InputError: If no task can use the data; with the reasons of each task.
    """
    problems: dict[Problem, None] = {}
    for task in (TASKS[name] for name in (tasks or TASKS)):
        try:
            return _inspect(path, dict(named or {}), task)
        except DataNotFoundError:
            raise
        except InputError as error:
            problems |= dict.fromkeys(_for_task(problem, task) for problem in error.problems)
    raise InputError(problems)


def _for_task(problem: Problem, task: Task) -> Problem:
    return Problem(f"For {task.name}: {problem.place}", problem.rule, problem.value, problem.repair)


def _inspect(path: str, named: Mapping[str, str], task: Task) -> InspectedData:
    source = load_source(path, modality=task.modality, columns=named)
    if "train" not in source.splits:
        raise InputError(Problem("The data", "must have a train split", ", ".join(source.splits)))
    train = source.splits["train"]
    guesses = guess_columns(train, task.modality, named)
    columns = {**named, **guesses}
    new = {split: _NEW_SPLIT for split in ("validation", "test") if split not in source.splits}
    fields: dict[str, Any] = {"columns": columns} if columns else {}
    if new:
        fields["split"] = {**new, "stratify": True}
    fields, data, removed = _load(path, task, fields)
    used = {value for value in data.columns.values() if isinstance(value, str)}
    return InspectedData(
        path=path,
        task=task,
        fields=fields,
        data=data,
        other_columns=tuple(name for name in train.column_names if name not in used),
        given_splits=tuple(source.splits),
        guessed=tuple(guesses),
        removed=removed,
    )


def _load(path: str, task: Task, fields: Mapping[str, Any]) -> tuple[dict[str, Any], LabeledData, str]:
    """Load the data strictly, else without its unusable examples, else also without stratified splits."""
    attempts: list[dict[str, Any]] = [{}, {"on_error": "skip"}]
    if "split" in fields:
        attempts.append({"on_error": "skip", "split": {**fields["split"], "stratify": False}})
    first_error: InputError | None = None
    for changes in attempts:
        tried = {**fields, **changes}
        try:
            data = load_data(_minimal_recipe(path, task, tried))
        except InputError as error:
            first_error = first_error or error
        else:
            return tried, data, str(first_error.problems[0]) if first_error else ""
    assert first_error is not None
    raise first_error


def _minimal_recipe(path: str, task: Task, fields: Mapping[str, Any]) -> Any:
    """Return a recipe with the data; its model is not read."""
    content = {"task": task.name, "model": "unread", "data": {"path": path, **fields}}
    return parse_recipe({**content, "stages": [{"train": "head", "epochs": 1, "lr": 0.1}]})
