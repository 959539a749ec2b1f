"""Recipe fields for class imbalance."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from hf_finetune.errors import InputError, Problem, shown
from hf_finetune.fields.base import Part
from hf_finetune.fields.choice import Choice

__all__ = ["BalanceSpec", "EffectiveNumber", "FocalLoss", "LogitAdjustment", "WithWeights"]


class BalanceSpec(Choice):
    """Correction of class imbalance."""

    shorthand = "method"

    method: str = Field(default="none", description="Correction of class imbalance.")


class WithWeights(Part):
    """Weights of the classes in the loss."""

    weights: dict[str, Annotated[float, Field(gt=0)]] | None = Field(
        default=None,
        description="Factor on the loss by class, 1 for classes that are not listed, such as {soup: 3.0}; null = "
        "computed for class_weights, 1 for focal.",
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
                raise InputError(Problem("", "must have names of classes as keys", shown(key), repair))
        return {str(key): weight for key, weight in value.items()}


class NoBalance(BalanceSpec):
    """No correction."""

    method: Literal["none"] = Field(default="none", description="No correction.")


class ClassWeights(WithWeights, BalanceSpec):
    """Class weights in the loss."""

    method: Literal["class_weights"] = Field(
        description="Multiplies the loss of an example by the weight of its class, examples / (classes x members), as "
        "scikit-learn's balanced (King & Zeng 2001), or by the given weight."
    )


class EffectiveNumber(BalanceSpec):
    """Class weights of effective numbers of examples."""

    method: Literal["effective_number"] = Field(
        description="As class_weights, but milder: the size n of a class is replaced by (1 - beta^n) / (1 - beta) "
        "(Cui et al. 2019)."
    )
    beta: float = Field(
        default=0.999,
        ge=0,
        lt=1,
        description="Factor by which each further example of a class counts less than the one before it; 0 = no "
        "weights; values close to 1 give almost those of class_weights.",
    )


class BalancedSampling(BalanceSpec):
    """Class-balanced sampling."""

    method: Literal["sampler"] = Field(
        description="Samples all classes equally often in each epoch (Kang et al. 2020)."
    )


class FocalLoss(WithWeights, BalanceSpec):
    """Focal loss."""

    method: Literal["focal"] = Field(
        description="Multiplies the loss by (1 - p)^gamma, where p is the probability of the true class (Lin et al. "
        "2017), experimental."
    )
    gamma: float = Field(
        default=2.0, ge=0, description="Exponent gamma (no unit); 0 = no change of the loss."
    )


class LogitAdjustment(BalanceSpec):
    """Logits adjusted by the class frequencies."""

    method: Literal["logit_adjustment"] = Field(
        description="Adds tau x log(class frequency) to the logits, in training only (Menon et al. 2021)."
    )
    tau: float = Field(default=1.0, gt=0, description="Factor on the logarithms of the class frequencies.")


BalanceSpec.model_rebuild(force=True)  # as the union of its classes
