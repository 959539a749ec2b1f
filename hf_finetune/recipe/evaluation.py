"""Recipe fields for evaluation and model selection. Each field description states the meaning and the unit."""

from typing import Literal

from pydantic import Field

from hf_finetune.fields.base import Part
from hf_finetune.fields.types import Costs, Count, Folds, NonEmptyText, Texts

__all__ = ["BestSpec", "EarlyStoppingSpec", "EvaluationSpec"]


class EarlyStoppingSpec(Part):
    """Condition that ends a stage early."""

    shorthand = "patience"

    patience: Count = Field(
        description="Number of consecutive evaluations without improvement after which the stage ends."
    )
    threshold: float = Field(
        default=0.0, ge=0, description="Change that an improvement must exceed, in the metric's unit."
    )


class BestSpec(Part):
    """Selection of the checkpoint of a stage that the next stage begins with."""

    shorthand = "metric"

    metric: NonEmptyText | None = Field(
        default=None, description="Metric on the validation split; null = the primary metric of the recipe."
    )


class EvaluationSpec(Part):
    """Evaluation on the validation and test splits."""

    batch_size: Count = Field(default=64, description="Number of examples per process and forward pass.")
    folds: Folds | None = Field(
        default=None,
        description="Number of folds of a cross-validation of the whole recipe, on all examples outside the test "
        "split; null = none.",
    )
    calibrate: bool = Field(
        default=False,
        description="Temperature scaling: whether a temperature is fitted on the validation split, and weights and "
        "biases of the linear head are divided by it, so that plain transformers computes calibrated probabilities.",
    )
    thresholds: bool | Literal["common"] = Field(
        default=False,
        description="Decision thresholds of multi-label data, fitted on the validation split: true = one for each "
        "class, which maximizes its F1; common = one for all classes, which maximizes the micro-averaged F1; false = "
        "0.5.",
    )
    top_k: Count | None = Field(
        default=None,
        description="For multi-label data: number of the most probable classes that are predicted for each example, "
        "whatever their probabilities; null = the classes whose probability reaches their threshold.",
    )
    slices: Texts = Field(
        default=(),
        description="Columns of the data; the test split is also evaluated for each of their values.",
    )
    costs: Costs | None = Field(
        default=None,
        description="Misclassification costs (no unit) by true and predicted class, such as {soup: {salad: 5, "
        "default: 2}}; adds the metrics expected_cost and expected_cost_bayes; null = none.",
    )
    probabilities: Literal["top", "all"] = Field(
        default="top",
        description="Probabilities in predictions.parquet if there are more than 200 classes: top = those of the "
        "20 most probable classes and of the label; all = those of all classes.",
    )
    linear_probe: Count | None = Field(
        default=10_000,
        description="Maximum number of training examples for which the linear probe is fitted, a logistic (or ridge) "
        "regression on frozen features, as a baseline; null = never.",
    )
