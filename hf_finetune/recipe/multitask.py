"""Recipe fields for training one model on several tasks. Each field description states the meaning and the unit."""

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import copy
from dataclasses import replace
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from hf_finetune.errors import InputError, Problem, short_repr
from hf_finetune.fields.base import Part
from hf_finetune.fields.raw_content import as_mapping
from hf_finetune.fields.types import Count, Texts, Workers
from hf_finetune.recipe.augment import AugmentSpec
from hf_finetune.recipe.data import DataSource, DataSpec
from hf_finetune.recipe.evaluation import BestSpec
from hf_finetune.recipe.method_rules import RULES, field_value
from hf_finetune.recipe.mixing import MixingSpec
from hf_finetune.recipe.modality_fields import DataFields, TaskName
from hf_finetune.recipe.rules import rule_problems
from hf_finetune.recipe.schema import Recipe, SingleTaskRecipe, changed_path
from hf_finetune.tasks import TASKS

__all__ = [
    "MULTI_TASK",
    "SHARED_DATA_FIELDS",
    "MultiTaskRecipe",
    "SharedDataSpec",
    "TaskDataSpec",
    "TaskSpec",
    "place_in_task",
    "problems_in_task",
    "recipe_class",
    "task_problems",
]

MULTI_TASK = "multi-task"
TASK_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
NOT_MULTI_TASK = "must not be set when the task is multi-task"
"""Rule for fields that only a single-task recipe supports."""
SINGLE_TASK_FIELDS = {
    "model.adapter": "All tasks share one backbone. Train it with a low learning rate instead.",
    "evaluation.folds": "Each task has its own test split.",
    "evaluation.costs": "The tasks have different classes.",
    "domain_adaptation": "Adapt to the target domain in a separate run, and use its model as the checkpoint.",
    "publish": "When the run is done, publish the tasks' models: hf-finetune publish RUN/tasks/NAME --to ...",
}
"""Fields that only a single-task recipe supports, each with the repair to suggest."""


def _copy_field(name: str) -> Any:
    """Return a copy of a field of ``DataSpec``."""
    return copy(DataSpec.model_fields[name])


class SharedDataSpec(DataFields):
    """Preparation of the examples, shared by all tasks."""

    augment: AugmentSpec = _copy_field("augment")
    workers: Workers = _copy_field("workers")
    group_by_length: bool = _copy_field("group_by_length")


SHARED_DATA_FIELDS = tuple(SharedDataSpec.model_fields)
"""Fields of ``data`` that control how examples become model inputs; all tasks of a model share them."""


class TaskDataSpec(DataSource):
    """Labeled data of one task."""

    on_error: Literal["fail", "skip"] = _copy_field("on_error")
    limit: Count | None = _copy_field("limit")


class TaskSpec(Part):
    """One of the tasks."""

    task: TaskName = Field(description="Type of the task; the same for all tasks of a recipe.")
    data: TaskDataSpec = Field(description="Labeled data of the task.")
    weight: float = Field(
        default=1.0,
        gt=0,
        description="Factor on the loss of the task, if weighting is fixed. No measured benefit.",
    )
    metrics: Texts = Field(
        default=(),
        description="Names of the task's metrics, the primary one first; [] = those of the recipe, or the default "
        "for the label type.",
    )


class MultiTaskRecipe(Recipe):
    """A fine-tuning run for several tasks at once."""

    task: Literal["multi-task"] = Field(
        description="Task of the model: multi-task, several tasks on one backbone."
    )
    data: SharedDataSpec = Field(
        default=SharedDataSpec(), description="Preparation of the examples, shared by all tasks."
    )
    tasks: dict[str, TaskSpec] = Field(
        description="Multi-task: at least two tasks by name, each with its own data.",
        json_schema_extra={"minProperties": 2},
    )
    mixing: MixingSpec = Field(
        default=MixingSpec(),
        description="Multi-task: fraction of each task in the examples of an epoch. No measured benefit.",
    )
    weighting: Literal["fixed", "uncertainty"] = Field(
        default="fixed",
        description="Multi-task: factor on the loss of each task: fixed = its weight; uncertainty = learned with a "
        "variance for each task (Kendall et al. 2018).",
    )

    @property
    def task_type(self) -> str:
        """Task type, the same for all tasks of the recipe."""
        return next(iter(self.tasks.values())).task

    @property
    def task_names(self) -> tuple[str, ...]:
        """Names of the tasks."""
        return tuple(self.tasks)

    @property
    def task_mixing(self) -> MixingSpec:
        """Fraction of each task in the examples of an epoch."""
        return self.mixing

    @property
    def learns_task_weights(self) -> bool:
        """Whether the factor on the loss of each task is learned."""
        return self.weighting == "uncertainty"

    def task_weight(self, name: str) -> float | None:
        """Return the factor on the loss of a task; None if it is learned."""
        return None if self.learns_task_weights else self.tasks[name].weight

    def by_task(self) -> dict[str, SingleTaskRecipe]:
        """Return the single-task recipe of each task by its name."""
        return {name: self.task_recipe(name) for name in self.tasks}

    def task_recipe(self, name: str) -> SingleTaskRecipe:
        """Return the single-task recipe of one task.

        Its settings for the best checkpoint and early stopping are the defaults, because those of the joint run apply.

        Args:
            name: Name of the task, a key of ``tasks``.
        """
        spec = self.tasks[name]
        shared = {field: getattr(self.data, field) for field in SHARED_DATA_FIELDS}
        task_data = {field: getattr(spec.data, field) for field in TaskDataSpec.model_fields}
        selection = {"best": BestSpec(), "early_stopping": None}
        fields = {field: getattr(self, field) for field in Recipe.model_fields}
        fields |= {
            "task": spec.task,
            "model": self.model.model_copy(update={"head": self.model.head.with_explicit_pooling()}),
            "data": DataSpec(**task_data, **shared),
            "metrics": spec.metrics or self.metrics,
            "stages": tuple(stage.model_copy(update=selection) for stage in self.stages),
            "strategy": None if self.strategy is None else self.strategy.model_copy(update=selection),
        }
        if not self.stages:
            del fields["stages"]
        return SingleTaskRecipe(**fields)

    def with_paths(self, change: Callable[[str], str]) -> Self:
        """Return a copy with all model and data paths mapped by ``change``; see ``Recipe.with_paths``."""
        tasks = {
            name: task.model_copy(update={"data": changed_path(task.data, change)})
            for name, task in self.tasks.items()
        }
        return super().with_paths(change).model_copy(update={"tasks": tasks})

    @model_validator(mode="after")
    def _check_tasks(self) -> Self:
        if problems := task_problems(self.model_dump()):
            raise InputError(problems)
        return self


def recipe_class(content: Mapping[str, Any]) -> type[Recipe]:
    """Return the class of a recipe, by its ``task``."""
    return MultiTaskRecipe if content.get("task") == MULTI_TASK else SingleTaskRecipe


def place_in_task(place: str, name: str) -> str:
    """Return the location in a multi-task recipe that corresponds to a location in the recipe of one task.

    Args:
        place: Location in the recipe of the task, such as ``data.path``.
        name: Name of the task; empty in a single-task recipe.
    """
    if not name:
        return place
    head, _, field = place.partition(".")
    if head == "data" and re.split(r"[.\[]", field)[0] not in SHARED_DATA_FIELDS:
        return f"tasks.{name}.{place}"
    if head.partition("[")[0] == "metrics":
        return f"tasks.{name}.{place}"
    known = head.partition("[")[0] in Recipe.model_fields
    return place if known else f"tasks.{name}: {place}"


@contextmanager
def problems_in_task(name: str) -> Iterator[None]:
    """Context manager: re-raise problems of one task's recipe with their locations in the multi-task recipe.

    Args:
        name: Name of the task; empty in a single-task recipe.

    Raises:
        InputError: With the problems.
    """
    try:
        yield
    except InputError as error:
        problems = [replace(problem, place=place_in_task(problem.place, name)) for problem in error.problems]
        raise InputError(problems) from error


def task_problems(recipe: Mapping[str, Any]) -> list[Problem]:
    """Return the problems between fields of a multi-task recipe; none for a single-task recipe.

    Args:
        recipe: Recipe as plain mappings and lists, any part of which may be missing or of the wrong type.
    """
    if recipe.get("task") != MULTI_TASK:
        return []
    tasks = {name: as_mapping(spec) for name, spec in as_mapping(recipe.get("tasks")).items()}
    return [
        *_name_problems(tasks),
        *_single_task_field_problems(recipe),
        *_stage_problems(recipe),
        *_weight_problems(recipe, tasks),
        *_data_problems(recipe, tasks),
    ]


def _name_problems(tasks: Mapping[Any, Mapping[str, Any]]) -> Iterator[Problem]:
    first = next(
        ((name, spec.get("task")) for name, spec in tasks.items() if spec.get("task") in TASKS), None
    )
    if len(tasks) == 1:
        repair = "Add a task, or write a single-task recipe."
        yield Problem("tasks", "must have at least two tasks", ", ".join(map(short_repr, tasks)), repair)
    for name, spec in tasks.items():
        if not isinstance(name, str) or not TASK_NAME.fullmatch(name):
            rule = "must start with a letter or digit and contain only letters, digits, '_' and '-'"
            yield Problem(
                f"The name of tasks.{name}",
                rule,
                short_repr(name),
                "It is used in the names of folders and weights.",
            )
        if first and spec.get("task") in TASKS and spec["task"] != first[1]:
            rule = f"must be {first[1]!r}, the same as tasks.{first[0]}.task"
            yield Problem(f"tasks.{name}.task", rule, short_repr(spec["task"]), "All tasks share one model.")


def _single_task_field_problems(recipe: Mapping[str, Any]) -> Iterator[Problem]:
    for place, repair in SINGLE_TASK_FIELDS.items():
        value = field_value(recipe, place)
        if value is not None:
            yield Problem(place, NOT_MULTI_TASK, short_repr(value), repair)


def _stage_problems(recipe: Mapping[str, Any]) -> Iterator[Problem]:
    stages = recipe.get("stages")
    listed = list(enumerate(stages)) if isinstance(stages, list | tuple) else []
    settings = [(f"stages[{index}]", as_mapping(stage)) for index, stage in listed]
    strategy = recipe.get("strategy")
    name = strategy if isinstance(strategy, str) else as_mapping(strategy).get("name")
    if name == "features":
        repair = "It fits the head of a single task. Write a stage with train: head, epochs and lr."
        yield Problem("strategy", "must not be features when the task is multi-task", "", repair)
    for place, stage in [*settings, ("strategy", as_mapping(strategy))]:
        for field, repair in (item for rules in RULES for item in rules.single_task_reasons.items()):
            if value := field_value(stage, field):
                yield Problem(f"{place}.{field}", NOT_MULTI_TASK, short_repr(value), repair)
        if stage.get("fit", "gradient") not in ("gradient", "auto"):
            repair = "Solvers fit only the head of a single task."
            yield Problem(
                f"{place}.fit",
                "must be gradient when the task is multi-task",
                short_repr(stage["fit"]),
                repair,
            )
        balance = stage.get("balance")
        if "sampler" in (balance, as_mapping(balance).get("method")):
            repair = "Examples are sampled as set in mixing. Use class_weights."
            yield Problem(f"{place}.balance", "must not be sampler when the task is multi-task", "", repair)


def _weight_problems(recipe: Mapping[str, Any], tasks: Mapping[str, Mapping[str, Any]]) -> Iterator[Problem]:
    for name, spec in tasks.items():
        if recipe.get("weighting") == "uncertainty" and spec.get("weight", 1.0) != 1.0:
            rule = "must not be set when weighting is uncertainty"
            yield Problem(f"tasks.{name}.weight", rule, short_repr(spec["weight"]), "It is learned.")


def _data_problems(recipe: Mapping[str, Any], tasks: Mapping[str, Mapping[str, Any]]) -> Iterator[Problem]:
    """Yield the problems of the single-task rules for each task; those of shared fields only once."""
    problems: dict[Problem, None] = {}
    for name, spec in tasks.items():
        data_spec = spec.get("data")
        task_data = {"path": data_spec} if isinstance(data_spec, str) else as_mapping(data_spec)
        single_task = {
            "task": spec.get("task"),
            "data": {**as_mapping(recipe.get("data")), **task_data},
            "speed": recipe.get("speed"),
            "strategy": "gradual_unfreeze",
        }
        for problem in rule_problems(single_task):
            place = place_in_task(problem.place, name)
            problems[Problem(place, problem.rule, problem.value, problem.repair)] = None
    yield from problems
