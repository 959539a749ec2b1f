"""Recipe fields of a stage, and of a strategy from which stages are generated."""

from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator

from hf_finetune.fields.base import PER_GROUP, PLAIN, Part, per_group_discriminator
from hf_finetune.fields.choice import Choice
from hf_finetune.fields.types import (
    STAGE_NAME_PATTERN,
    Argument,
    Count,
    NonEmptyText,
    RateRange,
    Seeds,
    Selector,
    Warmup,
)
from hf_finetune.recipe.balance import BalanceSpec
from hf_finetune.recipe.compress import CompressSpec
from hf_finetune.recipe.evaluation import BestSpec, EarlyStoppingSpec
from hf_finetune.recipe.head_fit import Classifier, Fit, solver_of
from hf_finetune.recipe.regularize import RegularizeSpec
from hf_finetune.recipe.rules import DEFAULT_OPTIMIZER
from hf_finetune.recipe.schedule import LINEAR, Schedules
from hf_finetune.recipe.teacher import TeacherSpec

__all__ = [
    "Features",
    "GradualUnfreeze",
    "OptimizerSpec",
    "RatesSpec",
    "StageSettings",
    "StageSpec",
    "StrategySpec",
    "remove_default",
]


def remove_default(schema: dict[str, Any]) -> None:
    """Remove the default from the JSON Schema of a field whose value is computed if it is missing."""
    del schema["default"]


class OptimizerSpec(Part):
    """Optimizer of a stage."""

    shorthand = "name"

    name: NonEmptyText = Field(
        default=DEFAULT_OPTIMIZER,
        description="Name of the optimizer: adamw, sgd (with momentum 0.9 unless args sets it), or another optimizer "
        "of transformers' Trainer.",
    )
    args: dict[str, Argument] = Field(
        default_factory=dict,
        description="Other arguments of the optimizer by name, with the values that its class takes, such as "
        "{nesterov: true}.",
    )


class RatesSpec(Part):
    """Learning rate of the head, and one or a range for the layer groups below it."""

    broadcasts_value = True

    head: float = Field(gt=0, description="Peak learning rate of the head.")
    backbone: RateRange = Field(
        description="Peak learning rate of the layer groups; or a pair [first layer group, last layer group], "
        "interpolated geometrically."
    )


Rates = Annotated[
    Annotated[Annotated[float, Field(gt=0)] | None, Tag(PLAIN)] | Annotated[RatesSpec, Tag(PER_GROUP)],
    Discriminator(per_group_discriminator(RatesSpec)),
]


class StageSettings(Part):
    """Training settings that a stage and a strategy share."""

    epochs: float | None = Field(
        default=None,
        gt=0,
        description="Number of epochs, which need not be an integer; null = max_steps is set instead, or a solver "
        "fits the head (fit); a stage cannot set both.",
    )
    max_steps: Count | None = Field(
        default=None,
        description="Number of optimizer steps; null = epochs is set instead, or a solver fits the head (fit).",
    )
    lr: Rates = Field(
        default=None,
        description="Peak learning rate of the head; or {head, backbone}, one for each; null = the default of the "
        "checkpoint's architecture (docs/rates.md), which plan and run print; required with an optimizer other than "
        "adamw.",
    )
    optimizer: OptimizerSpec = Field(default=OptimizerSpec(), description="Optimizer.")
    schedule: Schedules = Field(
        default=LINEAR,
        description="Learning-rate schedule after warmup; or {head, backbone}, one for each.",
    )
    warmup: Warmup = Field(
        default=0, description="Warmup steps (integer), or fraction of the stage's steps (number below 1)."
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
        "that of the checkpoint's architecture if lr is not set (docs/rates.md).",
    )
    batch_size: Count = Field(default=32, description="Number of examples per process and forward pass.")
    accumulation: Count = Field(
        default=1,
        description="Gradient accumulation: number of forward and backward passes per optimizer step.",
    )
    clip: float | None = Field(
        default=1.0, gt=0, description="Maximum L2 norm of the gradient; null = no clipping."
    )
    label_smoothing: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="Fraction of each label that is distributed over all classes (Szegedy et al. 2016). "
        "No measured benefit.",
    )
    balance: BalanceSpec = Field(
        default=BalanceSpec(),
        description="Correction of class imbalance.",
    )
    regularize: RegularizeSpec = Field(
        default=RegularizeSpec(),
        description="Regularization in addition to weight_decay, label_smoothing and early_stopping; {} = none. "
        "No measured benefit.",
    )
    early_stopping: EarlyStoppingSpec | None = Field(
        default=None,
        description="Number of consecutive evaluations without improvement after which the stage ends; the "
        "evaluation before the first step is the first reference (Prechelt 1998); null = never.",
    )
    best: BestSpec | None = Field(
        default=BestSpec(),
        description="Metric that decides which weights the stage keeps: those of the best epoch, or the initial ones "
        "if no epoch is better; null = the last weights are kept.",
    )
    carry_optimizer: bool = Field(
        default=False,
        description="Whether parameters that the previous stage also trained keep their optimizer state (moments "
        "and step counts).",
    )
    teacher: TeacherSpec | None = Field(
        default=None,
        description="Finished model whose predictions are used in addition to the labels (knowledge "
        "distillation); null = none.",
    )

    @model_validator(mode="after")
    def _reset_layer_decay_if_lr_is_set(self) -> Self:
        """Set the layer decay to 1 if the recipe sets ``lr``, or a solver fits the head.

        The default decay of an architecture is tuned together with its default learning rate.
        """
        if self.layer_decay is None and (self.lr is not None or solver_of(self)):
            object.__setattr__(self, "layer_decay", 1.0)
        return self


class _StageIdentity(Part):
    """Fields of a stage that are listed before those of ``StageSettings``; therefore in a base class."""

    name: str = Field(
        default="",
        pattern=STAGE_NAME_PATTERN,
        max_length=100,
        description="Name of the stage and of its folder; by default derived from train.",
        json_schema_extra=remove_default,
    )
    train: Selector = Field(
        description="Selector of the parameters to train: head, all, last:N, layers[A:B], norms, biases, an "
        "adapter, /regex/, or a list; auto = the layers recommended for the checkpoint's architecture "
        "(docs/rates.md)."
    )


class StageSpec(StageSettings, _StageIdentity):
    """Training stage: the parameters to train, the duration, the learning rates and other settings."""

    fit: Fit = Field(
        default="gradient",
        description="Training of the head: gradient = by gradient steps; logistic_regression = by a solver "
        "(scikit-learn), for classes; ridge = by a solver (scikit-learn), for regression (Hoerl & Kennard "
        "1970); auto = by a solver if the head is one linear layer, else by gradient steps.",
    )
    seeds: Seeds | None = Field(
        default=None,
        description="Number of trainings of the stage (no unit), each from the same weights and with another random "
        "seed; the stage keeps the mean of their weights (Wortsman et al. 2022); null = one training. "
        "The gain over one training was not significant on held-out folds.",
    )
    compress: CompressSpec | None = Field(
        default=None,
        description="Pruning before the stage trains: the fraction of the model to remove; null = none.",
    )


class _Strategy(Part):
    """Field of a strategy that is listed before those of ``StageSettings``."""

    name: str = Field(description="Strategy from which the stages are generated.")


class StrategySpec(Choice, StageSettings, _Strategy):
    """Strategy from which stages are generated; its settings apply to each stage."""

    shorthand = discriminator = "name"

    epochs: float | None = Field(
        default=None,
        gt=0,
        description="Number of epochs of each stage; null = 1 (20 if classifier is sgd), unless max_steps is set.",
    )
    lr: Rates = Field(
        default=None,
        description="Peak learning rate of the head; or {head, backbone}, one for each; null = the default of the "
        "checkpoint's architecture for adamw (docs/rates.md), or 0.01 if classifier is sgd.",
    )
    optimizer: OptimizerSpec | None = Field(  # type: ignore[assignment]
        default=None,
        description="Optimizer; null = adamw, or sgd if classifier is sgd.",
    )


class GradualUnfreeze(StrategySpec):
    """Stages that train the head, then more and more of the last layer groups, then all parameters."""

    name: Literal["gradual_unfreeze"]
    groups_per_stage: Count = Field(
        default=1, description="Number of layer groups that each stage adds to those of the previous one."
    )


class Features(StrategySpec):
    """One stage that trains only the head, on the outputs of the frozen layers; no measured benefit."""

    name: Literal["features"]
    classifier: Classifier = Field(
        default="logistic_regression",
        description="Training of the head, as fit in a stage: sgd = by gradient steps, with any optimizer; "
        "logistic_regression = by a solver, for classes; ridge = by a solver, for regression. No measured benefit.",
    )
