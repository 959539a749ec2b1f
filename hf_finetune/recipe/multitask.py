"""Recipe fields for training one model on several tasks. Each field description states the meaning and the unit."""

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import copy
from dataclasses import replace
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from hf_finetune.errors import InputError, Problem, shown
from hf_finetune.fields.base import Part
from hf_finetune.fields.raw_content import as_mapping
from hf_finetune.fields.types import Count, Texts, Workers
from hf_finetune.recipe.augment import AugmentSpec
from hf_finetune.recipe.data import DataSource, DataSpec
from hf_finetune.recipe.method_rules import RULES, field_value
from hf_finetune.recipe.mixing import MixingSpec
from hf_finetune.recipe.modality_fields import DataFields, TaskName
from hf_finetune.recipe.rules import rule_problems
from hf_finetune.recipe.schema import BestSpec, Recipe, SingleTaskRecipe, changed_path
from hf_finetune.tasks import TASKS

__all__ = [
    "MULTI_TASK",
    "SHARED",
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
RULE = "must be left out when the task is multi-task"
ALONE = {
    "model.adapter": "All tasks share one backbone. Train it with a low learning rate instead.",
    "evaluation.folds": "Each task has its own test split.",
    "evaluation.costs": "The tasks have different classes.",
    "domain_adaptation": "Adapt to the target domain in a separate run, and use its model as the checkpoint.",
    "publish": "When the run is done, publish the tasks' models: hf-finetune publish RUN/tasks/NAME --to ...",
}
"""Fields that only a single-task recipe may set, each with the repair to suggest."""


def _same(name: str) -> Any:
    """Return a copy of a field of ``DataSpec``."""
    return copy(DataSpec.model_fields[name])


class SharedDataSpec(DataFields):
    """Preparation of the examples, the same for all tasks."""

    augment: AugmentSpec = _same("augment")
    workers: Workers = _same("workers")
    group_by_length: bool = _same("group_by_length")


SHARED = tuple(SharedDataSpec.model_fields)
"""Fields of ``data`` that control how examples become model inputs; all tasks of a model share them."""


class TaskDataSpec(DataSource):
    """Labeled data of one task."""

    on_error: Literal["fail", "skip"] = _same("on_error")
    limit: Count | None = _same("limit")


class TaskSpec(Part):
    """One of the tasks."""

    task: TaskName = Field(
        description="What the model does in this task; it is the same for all tasks of a recipe."
    )
    data: TaskDataSpec = Field(description="Labeled data of the task: its path, or its fields.")
    weight: float = Field(
        default=1.0,
        gt=0,
        description="Factor on the loss of each example of the task, if weighting is fixed. Experimental.",
    )
    metrics: Texts = Field(
        default=(),
        description="Names of the task's metrics, the leading one first; [] = those of the recipe, or the default "
        "for the kind of labels.",
    )


class MultiTaskRecipe(Recipe):
    """A fine-tuning run for several tasks at once."""

    task: Literal["multi-task"] = Field(
        description="What the model does: multi-task, several tasks on one backbone."
    )
    data: SharedDataSpec = Field(
        default=SharedDataSpec(), description="Preparation of the examples, which is the same for all tasks."
    )
    tasks: dict[str, TaskSpec] = Field(
        description="For multi-task: the tasks by name, at least two, each with its own data.",
        json_schema_extra={"minProperties": 2},
    )
    mixing: MixingSpec = Field(
        default=MixingSpec(),
        description="For multi-task: share of each task in the examples of an epoch: a method, or its fields. "
        "Experimental.",
    )
    weighting: Literal["fixed", "uncertainty"] = Field(
        default="fixed",
        description="For multi-task: factor on the loss of each task: fixed = its weight; uncertainty = learned "
        "with a variance for each task (Kendall et al. 2018).",
    )

    @property
    def kind(self) -> str:
        """Task type that all tasks of the recipe share."""
        return next(iter(self.tasks.values())).task

    @property
    def task_names(self) -> tuple[str, ...]:
        """Names of the tasks."""
        return tuple(self.tasks)

    @property
    def task_mixing(self) -> MixingSpec:
        """Share of each task in the examples of an epoch."""
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
        return {name: self.of_task(name) for name in self.tasks}

    def of_task(self, name: str) -> SingleTaskRecipe:
        """Return the single-task recipe of one task.

        Its settings for the best checkpoint and for early stopping are the defaults: the joint run decides on both.

        Args:
            name: Name of the task, a key of ``tasks``.
        """
        spec = self.tasks[name]
        shared = {field: getattr(self.data, field) for field in SHARED}
        task_data = {field: getattr(spec.data, field) for field in TaskDataSpec.model_fields}
        selection = {"best": BestSpec(), "early_stopping": None}
        fields = {field: getattr(self, field) for field in Recipe.model_fields}
        fields |= {
            "task": spec.task,
            "model": self.model.model_copy(update={"head": self.model.head.stated()}),
            "data": DataSpec(**task_data, **shared),
            "metrics": spec.metrics or self.metrics,
            "stages": tuple(stage.model_copy(update=selection) for stage in self.stages),
            "strategy": None if self.strategy is None else self.strategy.model_copy(update=selection),
        }
        if not self.stages:
            del fields["stages"]
        return SingleTaskRecipe(**fields)

    def with_paths(self, change: Callable[[str], str]) -> Self:
        """Return a copy with other paths of its models and data; see ``Recipe.with_paths``."""
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
    """Return the place in a whole recipe that corresponds to a place in the recipe of one task.

    Args:
        place: Place in the recipe of the task, such as ``data.path``.
        name: Name of the task; empty for the only one, whose recipe is the whole.
    """
    if not name:
        return place
    head, _, field = place.partition(".")
    if head == "data" and re.split(r"[.\[]", field)[0] not in SHARED:
        return f"tasks.{name}.{place}"
    if head.partition("[")[0] == "metrics":
        return f"tasks.{name}.{place}"
    known = head.partition("[")[0] in Recipe.model_fields
    return place if known else f"tasks.{name}: {place}"


@contextmanager
def problems_in_task(name: str) -> Iterator[None]:
    """Raise the problems of the recipe of one task, raised in the block, with their places in the whole recipe.

    Args:
        name: Name of the task; empty for the only one.

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
        *_alone_problems(recipe),
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
        yield Problem("tasks", "must have at least two tasks", ", ".join(map(shown, tasks)), repair)
    for name, spec in tasks.items():
        if not isinstance(name, str) or not TASK_NAME.fullmatch(name):
            rule = "must start with a letter or digit and hold only letters, digits, '_' and '-'"
            yield Problem(
                f"The name of tasks.{name}",
                rule,
                shown(name),
                "It is used in the names of folders and weights.",
            )
        if first and spec.get("task") in TASKS and spec["task"] != first[1]:
            rule = f"must be {first[1]!r}, the same as tasks.{first[0]}.task"
            yield Problem(f"tasks.{name}.task", rule, shown(spec["task"]), "All tasks share one model.")


def _alone_problems(recipe: Mapping[str, Any]) -> Iterator[Problem]:
    for place, repair in ALONE.items():
        value = field_value(recipe, place)
        if value is not None:
            yield Problem(place, RULE, shown(value), repair)


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
        for field, repair in (item for rules in RULES for item in rules.one_task.items()):
            if value := field_value(stage, field):
                yield Problem(f"{place}.{field}", RULE, shown(value), repair)
        if stage.get("fit", "gradient") not in ("gradient", "auto"):
            repair = "Solvers fit only the head of a single task."
            yield Problem(
                f"{place}.fit", "must be gradient when the task is multi-task", shown(stage["fit"]), repair
            )
        balance = stage.get("balance")
        if "sampler" in (balance, as_mapping(balance).get("method")):
            repair = "Examples are sampled as set in mixing. Use class_weights."
            yield Problem(f"{place}.balance", "must not be sampler when the task is multi-task", "", repair)


def _weight_problems(recipe: Mapping[str, Any], tasks: Mapping[str, Mapping[str, Any]]) -> Iterator[Problem]:
    for name, spec in tasks.items():
        if recipe.get("weighting") == "uncertainty" and spec.get("weight", 1.0) != 1.0:
            rule = "must be left out when weighting is uncertainty"
            yield Problem(f"tasks.{name}.weight", rule, shown(spec["weight"]), "It is learned.")


def _data_problems(recipe: Mapping[str, Any], tasks: Mapping[str, Mapping[str, Any]]) -> Iterator[Problem]:
    """Apply the rules for single-task data to each task, and yield their problems, those of shared fields once."""
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
