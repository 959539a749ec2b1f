"""Recipe fields: root, stages and evaluation. Each field description states the meaning and the unit."""

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BeforeValidator, Discriminator, Field, Tag, field_validator, model_validator

from hf_finetune.errors import InputError
from hf_finetune.fields.base import PER_GROUP, PLAIN, Part, form_of
from hf_finetune.fields.types import (
    STAGE_NAME,
    Argument,
    Count,
    RateRange,
    Seed,
    Selector,
    Text,
    Texts,
    Warmup,
    as_tuple,
)
from hf_finetune.recipe.balance import BalanceSpec
from hf_finetune.recipe.compress import CompressSpec
from hf_finetune.recipe.data import ColumnsSpec, DataSpec, SplitSpec
from hf_finetune.recipe.domain import DomainSpec
from hf_finetune.recipe.evaluation import BestSpec, EarlyStoppingSpec, EvaluationSpec
from hf_finetune.recipe.head_fit import Classifier, Fit, fit_problems, fitted_by
from hf_finetune.recipe.mixing import MixingSpec
from hf_finetune.recipe.modality_fields import DataFields, TaskName
from hf_finetune.recipe.model import AdapterSpec, ModelSpec
from hf_finetune.recipe.publish import PublishSpec
from hf_finetune.recipe.regularize import RegularizeSpec
from hf_finetune.recipe.rules import DEFAULT_OPTIMIZER, rule_problems
from hf_finetune.recipe.schedule import Schedules, ScheduleSpec, SchedulesSpec
from hf_finetune.recipe.speed import PrefixCacheSpec, SpeedSpec
from hf_finetune.recipe.teacher import TeacherSpec
from hf_finetune.tasks import TASKS

__all__ = [
    "AdapterSpec",
    "BalanceSpec",
    "BestSpec",
    "ColumnsSpec",
    "CompressSpec",
    "DataSpec",
    "DomainSpec",
    "EarlyStoppingSpec",
    "EvaluationSpec",
    "ModelSpec",
    "OptimizerSpec",
    "Part",
    "PrefixCacheSpec",
    "PublishSpec",
    "RatesSpec",
    "Recipe",
    "RegularizeSpec",
    "ScheduleSpec",
    "SchedulesSpec",
    "SingleTaskRecipe",
    "SpeedSpec",
    "SplitSpec",
    "StageSettings",
    "StageSpec",
    "StrategySpec",
    "TeacherSpec",
    "changed_path",
]


def _without_default(schema: dict[str, Any]) -> None:
    """Remove from the JSON Schema the default of a field that is filled in when the recipe is read."""
    del schema["default"]


class OptimizerSpec(Part):
    """Optimizer of a stage."""

    shorthand = "name"

    name: Text = Field(
        default=DEFAULT_OPTIMIZER,
        description="Name of the optimizer: sgd, adamw, or another optimizer of transformers' Trainer.",
    )
    args: dict[str, Argument] = Field(
        default_factory=dict,
        description="Other arguments of the optimizer by name, in its own units, such as {momentum: 0.9}.",
    )


class RatesSpec(Part):
    """Discriminative learning rates: one for the head, and one or a range for the layer groups below it."""

    spreads = True

    head: float = Field(gt=0, description="Peak learning rate of the head per optimizer step.")
    backbone: RateRange = Field(
        description="Peak learning rate of the layer groups; or [nearest the input, nearest the head], a "
        "geometric range."
    )


Rates = Annotated[
    Annotated[Annotated[float, Field(gt=0)] | None, Tag(PLAIN)] | Annotated[RatesSpec, Tag(PER_GROUP)],
    Discriminator(form_of(RatesSpec)),
]


class StageSettings(Part):
    """Training settings that a stage and a strategy share."""

    epochs: float | None = Field(
        default=None, gt=0, description="Duration in passes over the training split; null = by max_steps."
    )
    max_steps: Count | None = Field(
        default=None, description="Duration in optimizer steps; null = by epochs."
    )
    lr: Rates = Field(
        default=None,
        description="Peak learning rate of the head per optimizer step; or {head, backbone}, one for each; null = "
        "the default of the checkpoint's architecture for adamw (docs/rates.md), which plan and run "
        "print.",
    )
    optimizer: OptimizerSpec = Field(
        default=OptimizerSpec(), description="Optimizer: its name, or its fields."
    )
    schedule: Schedules = Field(
        default=ScheduleSpec(),
        description="Learning rate after warmup: the name of a schedule, or its fields; or {head, backbone}, one "
        "for each.",
    )
    warmup: Warmup = Field(
        default=0, description="Steps until the peak learning rate; below 1, a fraction of the stage's steps."
    )
    weight_decay: float = Field(
        default=0.01,
        ge=0,
        description="Weight decay (no unit), not applied to norms, biases and parameters that the model exempts "
        "(Loshchilov & Hutter 2019).",
    )
    layer_decay: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="Factor on the learning rate per layer group, from the head towards the input; null = 1, or "
        "that of the checkpoint's architecture if lr is left out (docs/rates.md).",
    )
    batch_size: Count = Field(default=32, description="Number of examples per process and forward pass.")
    accumulation: Count = Field(default=1, description="Number of forward passes per optimizer step.")
    clip: float | None = Field(
        default=1.0, gt=0, description="Maximum L2 norm of the gradient; null = no clipping."
    )
    label_smoothing: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="Fraction of each label that is spread over all classes (Szegedy et al. 2016). Experimental.",
    )
    balance: BalanceSpec = Field(
        default=BalanceSpec(),
        description="Correction of class imbalance: a method, or its fields.",
    )
    regularize: RegularizeSpec = Field(
        default=RegularizeSpec(),
        description="Regularization in addition to weight_decay, label_smoothing and early_stopping; {} = none. "
        "Experimental.",
    )
    early_stopping: EarlyStoppingSpec | None = Field(
        default=None,
        description="Number of consecutive evaluations without improvement after which the stage ends, or its "
        "fields; the evaluation before the first step is the first reference (Prechelt 1998); null = "
        "never.",
    )
    best: BestSpec | None = Field(
        default=BestSpec(),
        description="Metric that selects the best epoch, or the initial weights of the stage if no epoch is "
        "better; null = the last weights are kept.",
    )
    carry_optimizer: bool = Field(
        default=False,
        description="Whether parameters that the previous stage trained too keep their optimizer state (moments "
        "and step counts).",
    )
    teacher: TeacherSpec | None = Field(
        default=None,
        description="Finished model whose predictions are used in addition to the labels (knowledge "
        "distillation): its path, or its fields; null = none.",
    )

    @model_validator(mode="after")
    def _without_a_default_for_given_rates(self) -> Self:
        """Set the layer decay to 1 if the architecture's default rates do not apply, as its decay belongs to these.

        They do not apply if the recipe sets the rate, or the head is fitted with a solver.
        """
        if self.layer_decay is None and (self.lr is not None or fitted_by(self)):
            object.__setattr__(self, "layer_decay", 1.0)
        return self


class _Named(Part):
    """Fields that a stage has in addition to ``StageSettings``; in a base class, so that they come first."""

    name: str = Field(
        default="",
        pattern=STAGE_NAME,
        max_length=100,
        description="Name of the stage and of its folder; if left out, it is made from the selector.",
        json_schema_extra=_without_default,
    )
    train: Selector = Field(
        description="Selector of the parameters to train: head, all, last:N, layers[A:B], norms, biases, an "
        "adapter, /regex/, or a list; auto = the layers recommended for the checkpoint's architecture "
        "(docs/rates.md)."
    )


class StageSpec(StageSettings, _Named):
    """Training stage: the parameters to train, the duration, the learning rates and other settings."""

    fit: Fit = Field(
        default="gradient",
        description="How the head is trained: gradient = by gradient steps; logistic_regression = fitted "
        "directly, for classes; ridge = fitted directly, for regression (Hoerl & Kennard 1970); auto "
        "= fitted directly if the head is one linear layer, else by gradient steps.",
    )
    compress: CompressSpec | None = Field(
        default=None,
        description="Pruning before the stage trains: the fraction of the model to remove, or its fields; null = "
        "none.",
    )


class _Strategy(Part):
    """Fields that a strategy has in addition to ``StageSettings``; in a base class, so that they come first."""

    name: Literal["gradual_unfreeze", "features"] = Field(
        description="gradual_unfreeze = stages that train the head, then more and more layer groups below it, "
        "then everything; features = one stage that trains only the head, on the outputs of the "
        "frozen layers, experimental."
    )
    groups_per_stage: Count = Field(
        default=1,
        description="For gradual_unfreeze: number of layer groups that each stage adds to those of the previous "
        "one.",
    )
    classifier: Classifier = Field(
        default="logistic_regression",
        description="For features: training of the head: sgd = by gradient steps; logistic_regression = fitted "
        "directly, for classes; ridge = fitted directly, for regression. Experimental.",
    )


class StrategySpec(StageSettings, _Strategy):
    """Strategy that writes the stages; the settings here apply to each of them."""

    shorthand = "name"

    epochs: float | None = Field(
        default=None,
        gt=0,
        description="Duration of each stage in passes over the training split; null = 1 (20 for classifier sgd), "
        "or by max_steps.",
    )
    lr: Rates = Field(
        default=None,
        description="Peak learning rate of the head per optimizer step; or {head, backbone}, one for each; null = "
        "the default of the checkpoint's architecture for adamw (docs/rates.md), or 0.01 for "
        "classifier sgd.",
    )
    optimizer: OptimizerSpec | None = Field(  # type: ignore[assignment]
        default=None,
        description="Optimizer: its name, or its fields; null = adamw, or sgd for classifier sgd.",
    )


PartT = TypeVar("PartT", bound=Part)
SettingsT = TypeVar("SettingsT", bound=StageSettings)


class Recipe(Part, ABC):
    """A fine-tuning run of one task or of several.

    Attributes:
        task: What the model does; docs/recipe.md describes this and all other fields, each of which is an attribute.

    Example:
        >>> from hf_finetune import Recipe, load_recipe
        >>> recipe: Recipe = load_recipe("reviews.yaml")
        >>> recipe.task, [stage.train for stage in recipe.stages], recipe.evaluation.batch_size
        ('text-classification', ['head', 'all'], 64)
    """

    task: str
    model: ModelSpec = Field(description="Pretrained checkpoint: its name, or its fields.")
    data: DataFields
    stages: Annotated[tuple[StageSpec, ...], BeforeValidator(as_tuple)] = Field(
        default=(),
        min_length=1,
        description="Training stages in their order; each begins with the weights of the previous one; required "
        "unless strategy is given.",
        json_schema_extra=_without_default,
    )
    strategy: StrategySpec | None = Field(
        default=None,
        description="Strategy that writes the stages: its name, or its fields; null = stages are given.",
    )
    domain_adaptation: DomainSpec | None = Field(
        default=None,
        description="Adaptation to another domain with unlabeled inputs; null = none. Experimental.",
    )
    metrics: Texts = Field(
        default=(),
        description="Names of the metrics; the first one is the leading metric, which selects the best epoch; [] "
        "= the default for the kind of labels.",
    )
    evaluation: EvaluationSpec = Field(default=EvaluationSpec(), description="Settings of all evaluations.")
    speed: SpeedSpec = Field(
        default=SpeedSpec(),
        description="Precision, memory format, compilation and caches; auto = auto in every field.",
    )
    track: Texts = Field(
        default=(),
        description="Tools that show losses and metrics live, as in the Trainer's report_to: tensorboard, "
        "trackio, ...",
    )
    seed: Seed = Field(default=0, description="Seed of all random choices (no unit).")
    publish: PublishSpec | None = Field(
        default=None,
        description="Repository on the Hub that the model is published to at the end of the run: NAMESPACE/NAME, "
        "or its fields; null = none.",
    )

    @property
    @abstractmethod
    def kind(self) -> str:
        """Task type that all tasks of the recipe share."""

    @property
    def task_names(self) -> tuple[str, ...]:
        """Names of the tasks; the only task of a recipe has the name ``""``."""
        return ("",)

    @property
    def task_mixing(self) -> MixingSpec:
        """Share of each task in the examples of an epoch."""
        return MixingSpec()

    @property
    def learns_task_weights(self) -> bool:
        """Whether the factor on the loss of each task is learned."""
        return False

    def task_weight(self, name: str) -> float | None:
        """Return the factor on the loss of a task; None if it is learned."""
        return 1.0

    @abstractmethod
    def by_task(self) -> dict[str, "SingleTaskRecipe"]:
        """Return the recipe of each task by its name.

        Returns:
            Recipe by task, at least one; the only task of a recipe has the name ``""``.

        Example:
            >>> from hf_finetune import load_recipe
            >>> list(load_recipe("reviews.yaml").by_task())
            ['']
        """

    def with_paths(self, change: Callable[[str], str]) -> Self:
        """Return a copy with other paths of its models and data.

        Args:
            change: Function that returns the new path or name.
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
    def _leave_out_no_stages(cls, value: Any) -> Any:
        """Treat ``stages: null``, and ``stages: []`` next to a strategy, as missing stages."""
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
    """A fine-tuning run, in full."""

    task: TaskName = Field(description=f"What the model does: {', '.join(TASKS)}, or multi-task.")
    data: DataSpec = Field(description="Labeled data: its path, or its fields.")

    @property
    def kind(self) -> str:
        """Task type."""
        return self.task

    def by_task(self) -> dict[str, "SingleTaskRecipe"]:
        """Return this recipe under the name ``""``."""
        return {"": self}

    def with_paths(self, change: Callable[[str], str]) -> Self:
        """Return a copy with other paths of its models and data; see ``Recipe.with_paths``."""
        return super().with_paths(change).model_copy(update={"data": changed_path(self.data, change)})


def changed_path(part: PartT, change: Callable[[str], str], field: str = "path") -> PartT:
    """Return a copy of a part with another path.

    Args:
        part: Part of a recipe.
        change: Function that returns the new path.
        field: Field with the path.
    """
    return part.model_copy(update={field: change(getattr(part, field))})


def _changed_teacher(stage: SettingsT, change: Callable[[str], str]) -> SettingsT:
    if stage.teacher is None:
        return stage
    return stage.model_copy(update={"teacher": changed_path(stage.teacher, change)})


def _free_name(selector: str | tuple[str, ...], taken: set[str]) -> str:
    """Return an unused stage name made from a selector: ``last:3`` -> ``last-3``, or ``last-3-2`` if that is taken."""
    words = re.findall(r"[A-Za-z0-9_]+", selector if isinstance(selector, str) else " ".join(selector))
    base = "-".join(words)[:40].strip("-_") or "stage"
    name, count = base, 1
    while name in taken:
        count += 1
        name = f"{base}-{count}"
    return name
