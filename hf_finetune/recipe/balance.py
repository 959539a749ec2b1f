"""Recipe fields for class imbalance."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, field_validator, model_serializer

from hf_finetune.errors import InputError, Problem, shown
from hf_finetune.fields.base import Part
from hf_finetune.recipe.rules import OF_BALANCE

__all__ = ["BalanceSpec"]


class BalanceSpec(Part):
    """How a stage makes up for classes of different sizes. Each other field belongs to the methods that it names."""

    shorthand = "method"

    method: Literal["none", "class_weights", "effective_number", "sampler", "focal", "logit_adjustment"] = (
        Field(
            default="none",
            description="How scarce classes get their share: class_weights, effective_number, sampler, focal, "
            "logit_adjustment, or none.",
        )
    )
    weights: dict[str, Annotated[float, Field(gt=0)]] | None = Field(
        default=None,
        description="Factor on the loss (no unit) by class, 1 for those left out, of class_weights and focal; "
        "null = as the classes' sizes say for class_weights, 1 for focal.",
    )
    beta: float = Field(
        default=0.999,
        ge=0,
        lt=1,
        description="Fraction by which an example of effective_number counts less than the one before it; "
        "0 = no weights, towards 1 = class_weights.",
    )
    gamma: float = Field(
        default=2.0,
        ge=0,
        description="Exponent (no unit) of focal: the loss is taken (1 - probability)^gamma times; 0 = as it is.",
    )
    tau: float = Field(
        default=1.0,
        gt=0,
        description="Factor (no unit) on the log frequencies that logit_adjustment adds to the logits in training.",
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
