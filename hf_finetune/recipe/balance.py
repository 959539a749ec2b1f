"""Recipe fields for class imbalance."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, field_validator, model_serializer

from hf_finetune.errors import InputError, Problem, shown
from hf_finetune.fields.base import Part
from hf_finetune.recipe.rules import OF_BALANCE

__all__ = ["BalanceSpec"]


class BalanceSpec(Part):
    """Correction of class imbalance. Each field except the method applies to the methods that it names."""

    shorthand = "method"

    method: Literal["none", "class_weights", "effective_number", "sampler", "focal", "logit_adjustment"] = (
        Field(
            default="none",
            description="Correction of class imbalance: class_weights = multiplies the loss of an example by the "
            "weight of its class, examples / (classes x members), as scikit-learn's balanced (King & Zeng "
            "2001), or by the given weight; effective_number = as class_weights, but milder: the size n "
            "of a class is replaced by (1 - beta^n) / (1 - beta) (Cui et al. 2019); sampler = samples all "
            "classes equally often in each epoch (Kang et al. 2020); focal = multiplies the loss by (1 - "
            "p)^gamma, where p is the probability of the true class (Lin et al. 2017), experimental; "
            "logit_adjustment = adds tau x log(class frequency) to the logits, in training only (Menon et "
            "al. 2021).",
        )
    )
    weights: dict[str, Annotated[float, Field(gt=0)]] | None = Field(
        default=None,
        description="For class_weights and focal: factor on the loss by class, 1 for classes that are not listed, "
        "such as {soup: 3.0}; null = computed for class_weights, 1 for focal.",
    )
    beta: float = Field(
        default=0.999,
        ge=0,
        lt=1,
        description="For effective_number: factor by which each further example of a class counts less than the "
        "one before it; 0 = no weights; values close to 1 give almost those of class_weights.",
    )
    gamma: float = Field(
        default=2.0,
        ge=0,
        description="For focal: exponent gamma (no unit); 0 = no change of the loss.",
    )
    tau: float = Field(
        default=1.0,
        gt=0,
        description="For logit_adjustment: factor on the logarithms of the class frequencies.",
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

    @model_serializer(mode="wrap")
    def _leave_out_other_methods(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Serialize the fields that this method uses, and any other that is set, so that the rules report it."""
        fields: dict[str, Any] = write(self)
        return {
            field: value
            for field, value in fields.items()
            if field not in OF_BALANCE or self.method in OF_BALANCE[field][0] or OF_BALANCE[field][1] != value
        }
