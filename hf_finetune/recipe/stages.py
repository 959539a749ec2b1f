"""Recipe fields of a stage, and of a strategy, which writes stages."""

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
    Selector,
    Warmup,
)
from hf_finetune.recipe.balance import BalanceSpec
from hf_finetune.recipe.compress import CompressSpec
from hf_finetune.recipe.evaluation import BestSpec, EarlyStoppingSpec
from hf_finetune.recipe.head_fit import Classifier, Fit, fitted_by
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
]


def _without_default(schema: dict[str, Any]) -> None:
    """Remove from the JSON Schema the default of a field that is filled in when the recipe is read."""
    del schema["default"]


class OptimizerSpec(Part):
    """Optimizer of a stage."""

    shorthand = "name"

    name: NonEmptyText = Field(
        default=DEFAULT_OPTIMIZER,
        description="Name of the optimizer: sgd, adamw, or another optimizer of transformers' Trainer.",
    )
    args: dict[str, Argument] = Field(
        default_factory=dict,
        description="Other arguments of the optimizer by name, in its own units, such as {momentum: 0.9}.",
    )


class RatesSpec(Part):
    """Discriminative learning rates: one for the head, and one or a range for the layer groups below it."""

    broadcasts_value = True

    head: float = Field(gt=0, description="Peak learning rate of the head per optimizer step.")
    backbone: RateRange = Field(
        description="Peak learning rate of the layer groups; or [nearest the input, nearest the head], a "
        "geometric range."
    )


Rates = Annotated[
    Annotated[Annotated[float, Field(gt=0)] | None, Tag(PLAIN)] | Annotated[RatesSpec, Tag(PER_GROUP)],
    Discriminator(per_group_discriminator(RatesSpec)),
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
        default=LINEAR,
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
        pattern=STAGE_NAME_PATTERN,
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
    """Field of a strategy that comes before those of ``StageSettings``."""

    name: str = Field(description="Strategy that writes the stages.")


class StrategySpec(Choice, StageSettings, _Strategy):
    """Strategy that writes the stages; the settings here apply to each of them."""

    shorthand = discriminator = "name"

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


class GradualUnfreeze(StrategySpec):
    """Stages that train the head, then more and more layer groups below it, then everything."""

    name: Literal["gradual_unfreeze"]
    groups_per_stage: Count = Field(
        default=1, description="Number of layer groups that each stage adds to those of the previous one."
    )


class Features(StrategySpec):
    """One stage that trains only the head, on the outputs of the frozen layers, experimental."""

    name: Literal["features"]
    classifier: Classifier = Field(
        default="logistic_regression",
        description="Training of the head: sgd = by gradient steps; logistic_regression = fitted directly, for "
        "classes; ridge = fitted directly, for regression. Experimental.",
    )
