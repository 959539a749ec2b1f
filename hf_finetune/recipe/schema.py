"""Recipe schema: fields with their meaning and unit, and access to the recipe of each task."""

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Self, TypeVar

from pydantic import BeforeValidator, Field, field_validator, model_validator

from hf_finetune.errors import InputError
from hf_finetune.fields.base import Part
from hf_finetune.fields.types import (
    SearchValues,
    Seed,
    Texts,
    as_tuple,
)
from hf_finetune.recipe.data import DataSpec
from hf_finetune.recipe.domain import DomainSpec
from hf_finetune.recipe.evaluation import EvaluationSpec
from hf_finetune.recipe.head_fit import fit_problems
from hf_finetune.recipe.limit import LimitSpec
from hf_finetune.recipe.mixing import MixingSpec
from hf_finetune.recipe.modality_fields import DataFields, TaskName
from hf_finetune.recipe.model import ModelSpec
from hf_finetune.recipe.publish import PublishSpec
from hf_finetune.recipe.rules import rule_problems
from hf_finetune.recipe.speed import SpeedSpec
from hf_finetune.recipe.stage_fields import (
    StageSettings,
    StageSpec,
    StrategySpec,
    remove_default,
)
from hf_finetune.tasks import TASKS

__all__ = ["Recipe", "SingleTaskRecipe", "changed_path"]


PartT = TypeVar("PartT", bound=Part)
SettingsT = TypeVar("SettingsT", bound=StageSettings)


class Recipe(Part, ABC):
    """Recipe of a fine-tuning run with one or several tasks.

    Attributes:
        task: Task of the model; docs/recipe.md describes this and all other fields, each of which is an attribute.

    Example:
        >>> from hf_finetune import Recipe, load_recipe
        >>> recipe: Recipe = load_recipe("reviews.yaml")
        >>> [stage.train for stage in recipe.stages], recipe.evaluation.batch_size, recipe.seed
        (['head', 'all'], 64, 0)
    """

    task: str
    model: ModelSpec = Field(description="Pretrained checkpoint: a Hub id or a local folder.")
    data: DataFields
    stages: Annotated[tuple[StageSpec, ...], BeforeValidator(as_tuple)] = Field(
        default=(),
        min_length=1,
        description="Training stages in their order; each begins with the weights of the previous one; required "
        "unless strategy is set.",
        json_schema_extra=remove_default,
    )
    strategy: StrategySpec | None = Field(
        default=None,
        description="Strategy from which the stages are generated; null = the recipe lists its stages.",
    )
    domain_adaptation: DomainSpec | None = Field(
        default=None,
        description="Adaptation to another domain with unlabeled inputs; null = none. No measured benefit.",
    )
    metrics: Texts = Field(
        default=(),
        description="Names of the metrics; the first one is the primary metric, which selects the best epoch; [] "
        "= the default for the label type.",
    )
    evaluation: EvaluationSpec = Field(default=EvaluationSpec(), description="Settings of all evaluations.")
    limit: LimitSpec | None = Field(
        default=None, description="Limit of the run; null = the run takes as long as its stages need."
    )
    speed: SpeedSpec = Field(
        default=SpeedSpec(),
        description="Precision, memory format, compilation and caches; auto = every setting is chosen by "
        "measurement.",
    )
    track: Texts = Field(
        default=(),
        description="Experiment trackers, as in the Trainer's report_to: tensorboard, trackio, ...",
    )
    seed: Seed = Field(default=0, description="Seed of all random choices (no unit).")
    publish: PublishSpec | None = Field(
        default=None,
        description="Repository on the Hub, NAMESPACE/NAME, to which the model is published at the end of the run; "
        "null = none.",
    )

    @property
    @abstractmethod
    def task_type(self) -> str:
        """Task type, the same for all tasks of the recipe."""

    @property
    def task_names(self) -> tuple[str, ...]:
        """Names of the tasks; a single-task recipe has one task named ``""``."""
        return ("",)

    @property
    def task_mixing(self) -> MixingSpec:
        """Fraction of each task in the examples of an epoch."""
        return MixingSpec()

    @property
    def learns_task_weights(self) -> bool:
        """Whether the factor on the loss of each task is learned."""
        return False

    def task_weight(self, name: str) -> float | None:
        """Return the factor on the loss of a task.

        Args:
            name: Name of the task.

        Returns:
            Factor (no unit); None if it is learned.

        Example:
            >>> from hf_finetune import load_recipe
            >>> load_recipe("reviews.yaml").task_weight("")
            1.0
        """
        return 1.0

    @abstractmethod
    def by_task(self) -> dict[str, "SingleTaskRecipe"]:
        """Return the recipe of each task by its name.

        Returns:
            Recipe by task; a single-task recipe has one task named ``""``.

        Example:
            >>> from hf_finetune import load_recipe
            >>> list(load_recipe("reviews.yaml").by_task())
            ['']
        """

    def with_paths(self, change: Callable[[str], str]) -> Self:
        """Return a copy with all model and data paths mapped by ``change``.

        Args:
            change: Function that returns the new path or name.

        Returns:
            The same recipe with the paths that the function returned.

        Example:
            >>> from hf_finetune import load_recipe
            >>> recipe = load_recipe("reviews.yaml")
            >>> recipe.with_paths(lambda path: f"/data/{path.split('/')[-1]}").data.path
            '/data/reviews.csv'
        """
        parts: dict[str, Any] = {"model": changed_path(self.model, change)}
        if self.domain_adaptation is not None:
            parts["domain_adaptation"] = changed_path(self.domain_adaptation, change, "target")
        if any(stage.teacher for stage in self.stages):
            parts["stages"] = tuple(_changed_teacher(stage, change) for stage in self.stages)
        if self.strategy is not None and self.strategy.teacher is not None:
            parts["strategy"] = _changed_teacher(self.strategy, change)
        return self.model_copy(update=parts)

    @model_validator(mode="before")
    @classmethod
    def _drop_empty_stages(cls, value: Any) -> Any:
        """Treat ``stages: null``, and ``stages: []`` together with a strategy, as missing stages."""
        if isinstance(value, Mapping) and "stages" in value:
            stages, strategy = value["stages"], value.get("strategy")
            if stages is None or (stages in ([], ()) and strategy is not None):
                return {field: entry for field, entry in value.items() if field != "stages"}
        return value

    @field_validator("stages")
    @classmethod
    def _name_stages(cls, stages: tuple[StageSpec, ...]) -> tuple[StageSpec, ...]:
        taken = {stage.name for stage in stages}
        named = []
        for stage in stages:
            if not stage.name:
                stage = stage.model_copy(update={"name": _free_name(stage.train, taken)})
                taken.add(stage.name)
            named.append(stage)
        return tuple(named)

    @model_validator(mode="after")
    def _check_rules(self) -> Self:
        problems = [*rule_problems(self.model_dump()), *fit_problems(self.stages, self.strategy)]
        if problems:
            raise InputError(problems)
        return self


class SingleTaskRecipe(Recipe):
    """Recipe of a single-task run."""

    task: TaskName = Field(description=f"Task of the model: {', '.join(TASKS)}, or multi-task.")
    data: DataSpec = Field(description="Labeled data: a Hub id, a table or a folder.")
    search: dict[str, SearchValues] | None = Field(
        default=None,
        description="Values that `tune` tries, by dotted path of the field: `log:1e-5..1e-2`, `1..10` or a list; other "
        "commands ignore them; null = none.",
    )

    @property
    def task_type(self) -> str:
        """Task type."""
        return self.task

    def by_task(self) -> dict[str, "SingleTaskRecipe"]:
        """Return this recipe under the name ``""``."""
        return {"": self}

    def with_paths(self, change: Callable[[str], str]) -> Self:
        """Return a copy with all model and data paths mapped by ``change``; see ``Recipe.with_paths``."""
        return super().with_paths(change).model_copy(update={"data": changed_path(self.data, change)})


def changed_path(part: PartT, change: Callable[[str], str], field: str = "path") -> PartT:
    """Return a copy of a part with another path.

    Args:
        part: Part of a recipe.
        change: Function that returns the new path.
        field: Field with the path; without one, the part is returned as it is.
    """
    if not getattr(part, field):
        return part
    return part.model_copy(update={field: change(getattr(part, field))})


def _changed_teacher(stage: SettingsT, change: Callable[[str], str]) -> SettingsT:
    if stage.teacher is None:
        return stage
    return stage.model_copy(update={"teacher": changed_path(stage.teacher, change)})


def _free_name(selector: str | tuple[str, ...], taken: set[str]) -> str:
    """Return an unused stage name for a selector: ``last:3`` -> ``last-3``, or ``last-3-2`` if that is taken."""
    words = re.findall(r"[A-Za-z0-9_]+", selector if isinstance(selector, str) else " ".join(selector))
    base = "-".join(words)[:40].strip("-_") or "stage"
    name = base
    count = 1
    while name in taken:
        count += 1
        name = f"{base}-{count}"
    return name
