"""Recipe fields for class imbalance."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from hf_finetune.errors import InputError, Problem, short_repr
from hf_finetune.fields.base import Part
from hf_finetune.fields.choice import Choice

__all__ = [
    "SEARCHED_BALANCE",
    "BalanceSpec",
    "EffectiveNumber",
    "FocalLoss",
    "LogitAdjustment",
    "WithWeights",
]


SEARCHED_BALANCE = {"balance": "class_weights"}
"""Fields of a stage with which a search balances classes of different sizes."""


class BalanceSpec(Choice):
    """Correction of class imbalance."""

    shorthand = discriminator = "method"

    method: str = "none"


class WithWeights(Part):
    """Weights of the classes in the loss."""

    weights: dict[str, Annotated[float, Field(gt=0)]] | None = Field(
        default=None,
        description="Factor on the loss of each class, such as {soup: 3.0}; 1 for classes that are not listed; "
        "null = computed for class_weights, 1 for focal.",
    )

    @field_validator("weights", mode="before")
    @classmethod
    def _name_classes(cls, value: Any) -> Any:
        """Convert integer keys to text, because the names of classes 0, 1, ... are text."""
        if not isinstance(value, Mapping):
            return value
        for key in value:
            if not isinstance(key, str) and type(key) is not int:
                repair = "Put the key in quotes."
                raise InputError(Problem("", "must have class names as keys", short_repr(key), repair))
        return {str(key): weight for key, weight in value.items()}


class NoBalance(BalanceSpec):
    """No correction."""

    method: Literal["none"] = "none"


class ClassWeights(WithWeights, BalanceSpec):
    """Multiplies the loss of an example by the weight of its class: that in balance.weights, or a computed one.

    Computed weights are n_examples / (n_classes x class size), as scikit-learn's balanced class weights (King & Zeng
    2001).
    """

    method: Literal["class_weights"]


class EffectiveNumber(BalanceSpec):
    """Like class_weights, with the effective number (1 - beta^n) / (1 - beta) for n examples (Cui et al. 2019)."""

    method: Literal["effective_number"]
    beta: float = Field(
        default=0.999,
        ge=0,
        lt=1,
        description="Parameter beta of the effective number (no unit); higher values favor rare classes more; 0 = all "
        "weights equal; values close to 1 result in almost the weights of class_weights.",
    )


class BalancedSampling(BalanceSpec):
    """Samples all classes equally often in each epoch (Kang et al. 2020)."""

    method: Literal["sampler"]


class FocalLoss(WithWeights, BalanceSpec):
    """Multiplies the loss by (1 - p)^gamma, where p is the probability of the true class (Lin et al. 2017).

    No measured benefit.
    """

    method: Literal["focal"]
    gamma: float = Field(
        default=2.0, ge=0, description="Exponent gamma (no unit); 0 = no change of the loss."
    )


class LogitAdjustment(BalanceSpec):
    """Adds tau x log(class frequency) to the logits, in training only (Menon et al. 2021)."""

    method: Literal["logit_adjustment"]
    tau: float = Field(default=1.0, gt=0, description="Factor on the logarithms of the class frequencies.")
