"""The fields of a recipe. Each says in its description what it means and in which unit."""

import re
from pathlib import PurePath
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from hf_finetune.errors import InputError
from hf_finetune.recipe.fields import (
    STAGE_NAME,
    Argument,
    Count,
    CountFromZero,
    Location,
    Patterns,
    Seed,
    Selector,
    Text,
    Texts,
    Warmup,
    as_tuple,
)
from hf_finetune.recipe.rules import HELD_OUT, rule_problems

__all__ = [
    "AdapterSpec",
    "BestSpec",
    "ColumnsSpec",
    "DataSpec",
    "EarlyStoppingSpec",
    "EvaluationSpec",
    "ModelSpec",
    "OptimizerSpec",
    "Recipe",
    "ScheduleSpec",
    "SpeedSpec",
    "SplitSpec",
    "StageSpec",
]


def _without_default(schema: dict[str, Any]) -> None:
    """Hide the default of a field that is filled in when the recipe is read."""
    del schema["default"]


class Part(BaseModel):
    """A part of a recipe: unknown fields are errors, types are not converted, nothing changes later."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    shorthand: ClassVar[str | None] = None
    """The field that a bare value stands for: ``model: NAME`` means ``model: {path: NAME}``."""

    @model_validator(mode="before")
    @classmethod
    def _expand_shorthand(cls, value: Any) -> Any:
        if cls.shorthand and isinstance(value, str | int | float | PurePath):
            return {cls.shorthand: value}
        return value


class AdapterSpec(Part):
    """Small weights beside the checkpoint's, which a stage trains in their place."""

    shorthand = "type"

    type: Literal["lora", "dora", "ia3"] = Field(
        description="Kind of adapter: lora and dora (products of two matrices), or ia3 (factors)."
    )
    r: Count = Field(default=8, description="Rank (no unit) of the matrices of lora and dora.")
    alpha: Count = Field(
        default=16, description="Strength (no unit) of lora and dora: their product is taken alpha / r times."
    )
    dropout: float = Field(
        default=0.0, ge=0, lt=1, description="Probability of dropping an input of lora and dora."
    )
    target: Texts = Field(
        default=("auto",),
        description="Layers that get it: auto, all-linear, the end of their names, /regex/, or a list.",
    )
    save: Literal["merged", "adapter", "both"] = Field(
        default="merged",
        description="What a run leaves: the model with the adapter merged in, the adapter alone, or both.",
    )


class ModelSpec(Part):
    """The pretrained checkpoint."""

    shorthand = "path"

    path: Location = Field(description="Checkpoint: a Hub id (timm/... for timm's) or a local folder.")
    revision: Text | None = Field(
        default=None, description="Branch, tag or commit on the Hub; null = the main branch."
    )
    adapter: AdapterSpec | None = Field(
        default=None,
        description="Adapter that a stage can train: lora, dora, ia3, or its fields; null = none.",
    )
    dropout: float | None = Field(
        default=None,
        ge=0,
        lt=1,
        description="Probability of dropping an activation before the head; null = the checkpoint's.",
    )
    allow_missing: Patterns = Field(
        default=(),
        description="Regular expressions of weight names that the checkpoint may lack or have too many.",
    )
    trust_remote_code: bool = Field(
        default=False, description="Whether code that comes with the checkpoint may run."
    )


class ColumnsSpec(Part):
    """What the data's columns are called; those left out are inferred."""

    image: Text | None = Field(
        default=None, description="Column of the images or their paths; null = inferred."
    )
    text: Text | None = Field(default=None, description="Column of the texts; null = inferred.")
    text_pair: Text | None = Field(
        default=None, description="Column of each text's second part; null = none."
    )
    label: Text | None = Field(default=None, description="Column of the labels; null = inferred.")
    group: Text | None = Field(
        default=None, description="Column of what must not be split, as data.split.group; null = none."
    )


class SplitSpec(Part):
    """How validation and test splits are made where the source has none."""

    validation: float = Field(
        default=HELD_OUT,
        ge=0,
        lt=1,
        description="Fraction of the examples held out for validation; 0 = none.",
    )
    test: float = Field(
        default=HELD_OUT, ge=0, lt=1, description="Fraction of the examples held out for the test; 0 = none."
    )
    stratify: bool = Field(
        default=True, description="Whether each split keeps the proportions of the classes."
    )
    group: Text | None = Field(
        default=None, description="Column whose equal values stay in one split; null = none."
    )


class DataSpec(Part):
    """The labelled data."""

    shorthand = "path"

    path: Location = Field(
        description="Hub id, folder of class folders, csv, json, jsonl or parquet file, or saved dataset."
    )
    config: Text | None = Field(
        default=None, description="Configuration of the Hub dataset; null = its default."
    )
    revision: Text | None = Field(
        default=None, description="Branch, tag or commit on the Hub; null = the main branch."
    )
    columns: ColumnsSpec = Field(default=ColumnsSpec(), description="Names of the columns.")
    split: SplitSpec = Field(default=SplitSpec(), description="Fractions of the splits made where missing.")
    target: Literal["auto", "single_label", "multi_label", "regression"] = Field(
        default="auto",
        description="A label is one class, a list of classes, or a number; auto = told from the column.",
    )
    image_size: Count | None = Field(
        default=None,
        description="Height and width of the model's input in pixels; null = the checkpoint's.",
    )
    train_image_size: Count | None = Field(
        default=None,
        description="Height and width of augmented training images in pixels; null = image_size.",
    )
    crop_pct: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="Fraction of the shorter edge kept by the centre crop at inference; null = the checkpoint's.",
    )
    max_length: Count | None = Field(
        default=None,
        description="Longest text in tokens, longer ones are cut; null = the checkpoint's.",
    )
    truncation_side: Literal["right", "left"] = Field(
        default="right", description="The end at which long texts are cut."
    )
    augment: Literal["none", "light", "standard", "strong"] = Field(
        default="standard", description="How much training images are varied; texts are never varied."
    )
    on_error: Literal["fail", "skip"] = Field(
        default="fail", description="What to do about unreadable examples."
    )
    limit: Count | None = Field(
        default=None, description="Number of examples used of each split; null = all."
    )
    workers: CountFromZero = Field(
        default=0, description="Number of processes that prepare batches; 0 = the main process."
    )


class OptimizerSpec(Part):
    """The optimiser of a stage."""

    shorthand = "name"

    name: Text = Field(
        default="adamw", description="Optimiser: sgd, adamw, or any name that transformers' Trainer knows."
    )
    args: dict[str, Argument] = Field(
        default_factory=dict, description="Its other arguments, in its own units: momentum, betas, eps, ..."
    )


class ScheduleSpec(Part):
    """How the learning rate falls after the warmup."""

    shorthand = "name"

    name: Literal["linear", "cosine", "constant", "polynomial"] = Field(
        default="linear", description="Shape of the learning rate over the stage's steps."
    )
    power: float = Field(
        default=1.0, gt=0, description="Exponent (no unit) of polynomial: rate x (1 - step/steps)^power."
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


class StageSpec(Part):
    """One stage: what is trained, for how long, at which rates."""

    name: str = Field(
        default="",
        pattern=STAGE_NAME,
        max_length=100,
        description="Name of the stage, in its folder's name too; left out = made from the selector.",
        json_schema_extra=_without_default,
    )
    train: Selector = Field(
        description="What is trained: head, all, last:N, layers[A:B], norms, biases, an adapter, /regex/, or a list."
    )
    epochs: float | None = Field(
        default=None, gt=0, description="Passes over the training split; or give max_steps."
    )
    max_steps: Count | None = Field(default=None, description="Number of optimiser steps; or give epochs.")
    lr: float = Field(gt=0, description="Peak learning rate of the head (per optimiser step).")
    optimizer: OptimizerSpec = Field(default=OptimizerSpec(), description="Optimiser, by name.")
    schedule: ScheduleSpec = Field(
        default=ScheduleSpec(), description="Shape of the learning rate over steps."
    )
    warmup: Warmup = Field(
        default=0, description="Steps until the peak rate; below 1 = a fraction of the stage's steps."
    )
    weight_decay: float = Field(
        default=0.01,
        ge=0,
        description="Weight decay (no unit), not applied to norms, biases and what the model exempts.",
    )
    layer_decay: float = Field(
        default=1.0,
        gt=0,
        le=1,
        description="Factor on the learning rate per layer group from the head towards the input.",
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
    early_stopping: EarlyStoppingSpec | None = Field(
        default=None,
        description="Number of evaluations without improvement that end the stage; null = never.",
    )
    best: BestSpec | None = Field(
        default=BestSpec(), description="Metric whose best checkpoint is kept; null = keep the last."
    )


class EvaluationSpec(Part):
    """How metrics are computed."""

    batch_size: Count = Field(default=64, description="Number of examples per process and forward pass.")


class SpeedSpec(Part):
    """How the numbers are computed: in which precision, layout and compilation."""

    precision: Literal["fp32", "bf16", "fp16"] = Field(
        default="fp32", description="Floating-point format, by its bits."
    )
    memory_format: Literal["contiguous", "channels_last"] = Field(
        default="contiguous", description="Order of the dimensions of image tensors in memory."
    )
    compile: bool = Field(default=False, description="Whether torch.compile is used.")


class Recipe(Part):
    """A fine-tuning run, in full."""

    task: Literal["image-classification", "text-classification"] = Field(
        description="What the model does: image-classification or text-classification."
    )
    model: ModelSpec = Field(description="Pretrained checkpoint: its name, or its fields.")
    data: DataSpec = Field(description="Labelled data: its path, or its fields.")
    stages: Annotated[tuple[StageSpec, ...], BeforeValidator(as_tuple)] = Field(
        min_length=1, description="Stages in the order they run, each on what the one before it gave."
    )
    metrics: Texts = Field(
        default=(), description="Names of the metrics, the leading one first; [] = the task's."
    )
    evaluation: EvaluationSpec = Field(default=EvaluationSpec(), description="Settings of every evaluation.")
    speed: SpeedSpec = Field(default=SpeedSpec(), description="How the numbers are computed.")
    seed: Seed = Field(default=0, description="Seed of every random choice (a whole number, no unit).")

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
        if problems := rule_problems(self.model_dump()):
            raise InputError(problems)
        return self


def _free_name(selector: str | tuple[str, ...], taken: set[str]) -> str:
    """Make an unused name of a selector: ``last:3`` -> ``last-3``, and ``last-3-2`` if that is taken."""
    words = re.findall(r"[A-Za-z0-9_]+", selector if isinstance(selector, str) else " ".join(selector))
    base = "-".join(words)[:40].strip("-_") or "stage"
    name, count = base, 1
    while name in taken:
        count += 1
        name = f"{base}-{count}"
    return name
