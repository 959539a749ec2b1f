"""What every part of a recipe is: a frozen model that converts nothing and knows its fields."""

from collections.abc import Callable, Mapping
from pathlib import PurePath
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, model_validator

__all__ = ["PER_GROUP", "PLAIN", "Part", "form_of", "parts"]

PLAIN, PER_GROUP = "(plain)", "(per group)"
"""The two forms of a field: one value, or one for the head and one for the backbone. No person sees these tags."""


class Part(BaseModel):
    """A part of a recipe: unknown fields are errors, types are not converted, nothing changes later."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    shorthand: ClassVar[str | None] = None
    """The field that a bare value stands for: ``model: NAME`` means ``model: {path: NAME}``."""

    spreads: ClassVar[bool] = False
    """Whether a bare value stands for every field: ``lr: 0.1`` means ``lr: {head: 0.1, backbone: 0.1}``."""

    @model_validator(mode="before")
    @classmethod
    def _expand_shorthand(cls, value: Any) -> Any:
        if cls.shorthand and isinstance(value, str | int | float | PurePath):
            return {cls.shorthand: value}
        return value


def parts() -> list[type[Part]]:
    """List the parts that a recipe is made of, without those that others are built on."""

    def leaves(part: type[Part]) -> list[type[Part]]:
        below = [leaf for child in part.__subclasses__() for leaf in leaves(child)]
        return below or [part]

    return list(dict.fromkeys(leaves(Part)))


def form_of(per_group: type[Part], plain: type[Part] | None = None) -> Callable[[Any], str]:
    """Give what tells whether a field's value has the form with one value for head and backbone each.

    pydantic would list the errors of both forms, of which only those of the form that was meant help.

    Args:
        per_group: The form with one value each.
        plain: The other form, where it can be a mapping too.
    """

    def form(value: Any) -> str:
        meant = isinstance(value, per_group) or (
            isinstance(value, Mapping)
            and (plain is None or not per_group.model_fields.keys().isdisjoint(value))
        )
        return PER_GROUP if meant else PLAIN

    return form
