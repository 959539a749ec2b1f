"""Recipe fields: root, stages and evaluation. Each field description states the meaning and the unit."""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Discriminator, Field, Tag, field_validator, model_validator

from hf_finetune.errors import InputError
from hf_finetune.fields.base import PER_GROUP, PLAIN, Part, form_of
from hf_finetune.fields.types import (
    STAGE_NAME,
    Argument,
    Costs,
    Count,
    Folds,
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
from hf_finetune.recipe.head_fit import Classifier, Fit, fit_problems, fitted_by
from hf_finetune.recipe.modality_fields import TaskName
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
    "SpeedSpec",
    "SplitSpec",
    "StageSettings",
    "StageSpec",
    "StrategySpec",
    "TeacherSpec",
]


def _without_default(schema: dict[str, Any]) -> None:
    """Remove from the JSON Schema the default of a field that is filled in when the recipe is read."""
    del schema["default"]


class OptimizerSpec(Part):
    """The optimiser of a stage."""

    shorthand = "name"

    name: Text = Field(
        default=DEFAULT_OPTIMIZER,
        description="Optimiser: sgd, adamw, or any name that transformers' Trainer knows.",
    )
    args: dict[str, Argument] = Field(
        default_factory=dict, description="Its other arguments, in its own units: momentum, betas, eps, ..."
    )


class RatesSpec(Part):
    """Discriminative learning rates: one for the head, and one or a range for the layer groups below it."""

    spreads = True

    head: float = Field(gt=0, description="Peak learning rate of the head (per optimiser step).")
    backbone: RateRange = Field(
        description="Peak learning rate of the layer groups; of two, the first is nearest the input, the second "
        "nearest the head, and equal factors lie between."
    )


class EarlyStoppingSpec(Part):
    """When a stage ends before its time."""

    shorthand = "patience"

    patience: Count = Field(description="Number of evaluations without improvement that end the stage.")
    threshold: float = Field(
        default=0.0, ge=0, description="Least change that counts as improvement, in the metric's unit."
    )


class BestSpec(Part):
    """Which checkpoint of a stage goes on to the next."""

    shorthand = "metric"

    metric: Text | None = Field(
        default=None, description="Metric on the validation split; null = first of the recipe's."
    )


Rates = Annotated[
    Annotated[Annotated[float, Field(gt=0)] | None, Tag(PLAIN)] | Annotated[RatesSpec, Tag(PER_GROUP)],
    Discriminator(form_of(RatesSpec)),
]


class StageSettings(Part):
    """Training settings that a stage and a strategy share."""

    epochs: float | None = Field(
        default=None, gt=0, description="Passes over the training split; or give max_steps."
    )
    max_steps: Count | None = Field(default=None, description="Number of optimiser steps; or give epochs.")
    lr: Rates = Field(
        default=None,
        description="Peak learning rate of the head (per optimiser step); or {head, backbone}, a rate for each; null = "
        "the default of the checkpoint's architecture (docs/rates.md), with adamw.",
    )
    optimizer: OptimizerSpec = Field(default=OptimizerSpec(), description="Optimiser, by name.")
    schedule: Schedules = Field(
        default=ScheduleSpec(),
        description="Shape of the learning rate over steps; or {head, backbone}, a shape for each.",
    )
    warmup: Warmup = Field(
        default=0, description="Steps until the peak rate; below 1 = a fraction of the stage's steps."
    )
    weight_decay: float = Field(
        default=0.01,
        ge=0,
        description="Weight decay (no unit), not applied to norms, biases and what the model exempts.",
    )
    layer_decay: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="Factor on the learning rate per layer group from the head towards the input; null = 1, or the "
        "architecture's default where lr is left out.",
    )
    batch_size: Count = Field(default=32, description="Number of examples per process and forward pass.")
    accumulation: Count = Field(default=1, description="Number of forward passes per optimiser step.")
    clip: float | None = Field(
        default=1.0, gt=0, description="Largest gradient norm (L2); null = no clipping."
    )
    label_smoothing: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="Fraction of each label's weight that is spread over all classes.",
    )
    balance: BalanceSpec = Field(
        default=BalanceSpec(),
        description="How scarce classes get their share: the method's name, or its fields; none = they do not.",
    )
    regularize: RegularizeSpec = Field(
        default=RegularizeSpec(),
        description="What keeps the stage from learning its examples by heart: l1, l2_sp, r_drop, ema, ...",
    )
    early_stopping: EarlyStoppingSpec | None = Field(
        default=None,
        description="Number of evaluations without improvement that end the stage; null = never.",
    )
    best: BestSpec | None = Field(
        default=BestSpec(), description="Metric whose best checkpoint is kept; null = keep the last."
    )
    carry_optimizer: bool = Field(
        default=False,
        description="Whether parameters that the stage before trained too keep their optimiser state.",
    )
    teacher: TeacherSpec | None = Field(
        default=None,
        description="Finished model to learn from beside the labels: its path, or its fields; null = none.",
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
        description="Name of the stage, in its folder's name too; left out = made from the selector.",
        json_schema_extra=_without_default,
    )
    train: Selector = Field(
        description="What is trained: head, all, last:N, layers[A:B], norms, biases, an adapter, /regex/, or a list; "
        "auto = what is worth it for the checkpoint's architecture (docs/rates.md)."
    )


class StageSpec(StageSettings, _Named):
    """One stage: what is trained, for how long, at which rates."""

    fit: Fit = Field(
        default="gradient",
        description="How the head is found: by gradient (steps), at once by logistic_regression, or ridge (amounts); "
        "auto = at once where the head is one linear layer, else by gradient.",
    )
    compress: CompressSpec | None = Field(
        default=None,
        description="What the stage first takes from the model: a fraction, or its fields; null = nothing.",
    )


class _Strategy(Part):
    """Fields that a strategy has in addition to ``StageSettings``; in a base class, so that they come first."""

    name: Literal["gradual_unfreeze", "features"] = Field(
        description="gradual_unfreeze: the head, then ever more layer groups below it, then everything; "
        "features: the head alone, on what the frozen layers give."
    )
    groups_per_stage: Count = Field(
        default=1, description="Number of layer groups that each stage trains more than the one before it."
    )
    classifier: Classifier = Field(
        default="logistic_regression",
        description="How features finds the head: sgd, logistic_regression, or for amounts ridge.",
    )


class StrategySpec(StageSettings, _Strategy):
    """Stages that are written for you; what is given here goes for each of them."""

    shorthand = "name"

    epochs: float | None = Field(
        default=None,
        gt=0,
        description="Passes over the training split in each stage; null = 1 (20 for sgd), or max_steps.",
    )
    lr: Rates = Field(
        default=None,
        description="Peak learning rate of the head (per optimiser step), or {head, backbone}, a rate for each; "
        "null = the default of the checkpoint's architecture (docs/rates.md; 0.01 for features by sgd).",
    )
    optimizer: OptimizerSpec | None = Field(  # type: ignore[assignment]
        default=None, description="Optimiser, by name; null = adamw (sgd for sgd)."
    )


class EvaluationSpec(Part):
    """How metrics are computed."""

    batch_size: Count = Field(default=64, description="Number of examples per process and forward pass.")
    folds: Folds | None = Field(
        default=None,
        description="Number of folds of a cross-validation of all examples but the test split's; null = none.",
    )
    calibrate: bool = Field(
        default=False,
        description="Whether the head is divided by the temperature (no unit) that fits the validation split.",
    )
    thresholds: bool = Field(
        default=False,
        description="Whether each class of multi-label data gets the probability that is best on validation "
        "in the place of 0.5.",
    )
    slices: Texts = Field(
        default=(),
        description="Columns of the data by whose values the test split is judged, each by itself.",
    )
    costs: Costs | None = Field(
        default=None,
        description="Cost of each wrong decision (no unit), by true class and decision: {soup: {salad: 5, default: "
        "1}}; adds the metrics of expected cost; null = none.",
    )
    probabilities: Literal["top", "all"] = Field(
        default="top",
        description="Which probabilities predictions.parquet keeps of more than 200 classes: top (20 of each "
        "example, and the label's) or all.",
    )
    linear_probe: Count | None = Field(
        default=10_000,
        description="Up to how many training examples a logistic regression on frozen features is fitted as a "
        "baseline; with more there is none; null = never.",
    )


class Recipe(Part):
    """A fine-tuning run, in full."""

    task: TaskName = Field(description=f"What the model does: {' or '.join(TASKS)}.")
    model: ModelSpec = Field(description="Pretrained checkpoint: its name, or its fields.")
    data: DataSpec = Field(description="Labelled data: its path, or its fields.")
    stages: Annotated[tuple[StageSpec, ...], BeforeValidator(as_tuple)] = Field(
        default=(),
        min_length=1,
        description="Stages in the order they run, each on what the one before it gave; or give strategy.",
        json_schema_extra=_without_default,
    )
    strategy: StrategySpec | None = Field(
        default=None,
        description="A strategy that writes the stages: its name, or its fields; or give stages.",
    )
    domain_adaptation: DomainSpec | None = Field(
        default=None,
        description="Inputs of another domain that the model is to get used to, and how; null = none.",
    )
    metrics: Texts = Field(
        default=(), description="Names of the metrics, the leading one first; [] = the task's."
    )
    evaluation: EvaluationSpec = Field(default=EvaluationSpec(), description="Settings of every evaluation.")
    speed: SpeedSpec = Field(default=SpeedSpec(), description="How the numbers are computed.")
    track: Texts = Field(
        default=(),
        description="Names of what shows losses and metrics live (the Trainer's report_to): tensorboard, trackio, ...",
    )
    seed: Seed = Field(default=0, description="Seed of every random choice (a whole number, no unit).")
    publish: PublishSpec | None = Field(
        default=None,
        description="Where the model is published when the run is done: NAMESPACE/NAME, or its fields; null = nowhere.",
    )

    @property
    def kind(self) -> str:
        """Task type; in a multi-task recipe, the type that all tasks share."""
        return self.task

    def by_task(self) -> dict[str, "Recipe"]:
        """Return the single-task recipe of each task by its name; a single task has the name ``""``."""
        return {"": self}

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


def _free_name(selector: str | tuple[str, ...], taken: set[str]) -> str:
    """Return an unused stage name made from a selector: ``last:3`` -> ``last-3``, or ``last-3-2`` if that is taken."""
    words = re.findall(r"[A-Za-z0-9_]+", selector if isinstance(selector, str) else " ".join(selector))
    base = "-".join(words)[:40].strip("-_") or "stage"
    name, count = base, 1
    while name in taken:
        count += 1
        name = f"{base}-{count}"
    return name
